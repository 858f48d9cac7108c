"""What the page is made of: rows, what stands beside them, one file that nothing can break out of."""

import base64
import hashlib
import http.client
import json
import re
import socket
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE
from bench.errors import BenchError
from bench.page.build import as_script_data, build_page
from bench.page.data import page_data
from bench.page.serve import make_server
from bench.store.identity import ENGINES
from bench.store.store import Store
from tests.bench.helpers import Inside, last_line
from tests.bench.page.made_up import HOSTILE, RADII, WRONG, made_up_store, standing, store_findings
from tests.bench.tables.stored import N, store_cell


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return page_data(made_up_store(tmp_path_factory.mktemp("store")), Path("nowhere"))


def row(data: dict[str, Any], dataset: str, attack: str, eps: float) -> dict[str, Any]:
    (found,) = (r for r in data["rows"] if (r["dataset"], r["attack"], r["eps"]) == (dataset, attack, eps))
    return found


def test_a_row_for_every_attack(data: dict[str, Any]) -> None:
    assert len(data["rows"]) == 3 * (2 + 1 + 1) + 1 and not data["problems"], "certificates are no rows"
    pgd = row(data, "mnist", "PGD", 8.0)
    assert pgd["robust"]["percent"] == pytest.approx(100 * 160 / N, abs=1e-3) and pgd["robust"]["n"] == N
    assert pgd["robust"]["low"] < pgd["robust"]["percent"] < pgd["robust"]["high"]
    assert pgd["clean"]["percent"] == pytest.approx(100 * (N - WRONG) / N, abs=1e-3)
    assert pgd["paper"] == 45.23 and pgd["paperClean"] == 96.99
    assert pgd["difference"] == pytest.approx(100 * 160 / N - 45.23, abs=0.01)
    assert (pgd["recipe"], pgd["protocol"], pgd["epsText"], pgd["control"]) == ("standard", "paper", "8/255", False)


def test_what_stands_beside_a_number(data: dict[str, Any]) -> None:
    pgd = row(data, "mnist", "PGD", 4.0)
    assert pgd["worst"]["percent"] == pytest.approx(100 * 180 / N, abs=1e-3)
    assert pgd["certified"]["percent"] == pytest.approx(100 * 140 / N, abs=1e-3)
    verdict = pgd["verdict"]
    assert (verdict["name"], verdict["level"], verdict["n"]) == ("masking", "WARN", 100)
    assert len(verdict["results"]) == len(SUITE)
    assert "masking" in verdict["sentence"]
    made_of = ["paper, I-FGSM", "paper, PGD", "adaptive, adaptive"] * 2
    assert sorted(one["what"] for one in pgd["behind"]) == ["certified", *sorted(f"worst case: {m}" for m in made_of)]
    for index in (pgd["cell"], *(one["cell"] for one in pgd["behind"])):
        assert data["cells"][index]["key"]["schema"] == 1 and data["cells"][index]["manifest"]["shards"] == 2


def test_certified_is_what_any_certificate_proves(tmp_path: Path) -> None:
    store = made_up_store(tmp_path)
    proven = (np.arange(N) >= 100) & (np.arange(N) < 150)  # where the other proves the first 140
    store_cell(
        store, "certificate", RADII[1], standing(N), dataset="mnist", protocol="certificate", certified=proven,
        options={"method": "dual"},
    )  # fmt: skip
    data = page_data(store, Path("nowhere"))
    assert row(data, "mnist", "PGD", 4.0)["certified"]["percent"] == pytest.approx(100 * 150 / N, abs=1e-3)
    assert row(data, "mnist", "PGD", 2.0)["certified"]["percent"] == pytest.approx(100 * 200 / N, abs=1e-3)
    behind = [one["what"] for one in row(data, "mnist", "PGD", 4.0)["behind"]]
    assert sorted(what for what in behind if "certified" in what) == ["certified", "certified[dual]"]


def test_the_card_says_how_it_was_trained(tmp_path: Path) -> None:
    store = made_up_store(tmp_path / "store")
    for path in (tmp_path / "store").glob("mnist/deq/*/manifest.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": "../deq-seed0-a.safetensors"}))
    card = {"settings": {"epochs": 3}, "training_set": {"reduced": "5000 of 54000 images"}}
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/deq-seed0-a.json").write_text(json.dumps(card))
    data = page_data(store, tmp_path)
    assert row(data, "mnist", "PGD", 4.0)["training"] == "3 epochs, reduced: 5000 of 54000 images, train seed 0"
    (tmp_path / "mnist/deq-seed0-a.json").write_text("[]")
    assert row(page_data(store, tmp_path), "mnist", "PGD", 4.0)["training"] == "train seed 0"


def test_findings_of_another_version_count_as_none(tmp_path: Path) -> None:
    store = made_up_store(tmp_path)
    path = next(tmp_path.glob("diagnostics/*/*/*/*/gradient.json"))
    path.write_text(path.read_text().replace('"version": ', '"version": 9'))
    verdict = row(page_data(store, Path("nowhere")), "mnist", "PGD", 4.0)["verdict"]
    assert len(verdict["results"]) == len(SUITE) - 1 and "gradient" not in [
        result["name"] for result in verdict["results"]
    ]
    assert verdict["name"] == f"partly diagnosed ({len(SUITE) - 1} of {len(SUITE)})"


FAILED = DiagnosticResult("solver", "FAIL", "It does not converge.", 0.9, 0.1, 20, (0.8, 0.95), "non-convergence")


def test_one_diagnostic_on_more_images_does_not_hide_the_whole_suite(tmp_path: Path) -> None:
    """`diagnose --examples 20`, then `diagnose --only determinism --examples 30`."""
    store = Store(tmp_path)
    cell = store_cell(store, "pgd", RADII[0], standing(100))
    store_findings(tmp_path, [cell], 10)
    store_findings(tmp_path, [cell], 20, FAILED)
    store_findings(tmp_path, [cell], 30, only=["determinism"])
    verdict = row(page_data(store, Path("nowhere")), "digits", "PGD", 2.0)["verdict"]
    assert (verdict["name"], verdict["level"]) == ("non-convergence", "FAIL")
    assert verdict["n"] == 20 and len(verdict["results"]) == len(SUITE)


def test_part_of_the_suite_is_no_verdict(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = store_cell(store, "pgd", RADII[0], standing(100))
    store_findings(tmp_path, [cell], 20, only=["noise", "determinism"])
    store_findings(tmp_path, [cell], 30, only=["determinism"])
    verdict = row(page_data(store, Path("nowhere")), "digits", "PGD", 2.0)["verdict"]
    assert (verdict["name"], verdict["level"]) == (f"partly diagnosed (2 of {len(SUITE)})", None)
    assert "no sign of failure" not in verdict["sentence"] and f"2 of {len(SUITE)}" in verdict["sentence"]
    assert verdict["n"] == 20 and [one["name"] for one in verdict["results"]] == ["noise", "determinism"]


def test_a_diagnosis_qualifies_only_the_cells_it_was_made_of(tmp_path: Path) -> None:
    """`diagnose --attacks ifgsm --eps 2` says nothing of PGD, of other radii or of other attack seeds."""
    store = Store(tmp_path)
    cells = {(a, e): store_cell(store, a, e, standing(100)) for a in ("ifgsm", "pgd") for e in RADII}
    store_cell(store, "ifgsm", RADII[0], standing(100), seed=1)
    store_findings(tmp_path, [cells["ifgsm", RADII[0]]], 20, FAILED)
    rows = page_data(store, Path("nowhere"))["rows"]
    qualified = [(r["attack"], r["epsText"], r["attackSeed"]) for r in rows if r["verdict"]]
    assert len(rows) == 7 and qualified == [("I-FGSM", "2/255", 0)]


def test_of_several_whole_diagnoses_the_one_on_most_images_counts_then_the_gravest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [store_cell(store, "pgd", eps, standing(100)) for eps in RADII]
    store_findings(tmp_path, cells, 20)
    store_findings(tmp_path, cells[:1], 20, FAILED)
    store_findings(tmp_path, cells[:2], 30)
    page = page_data(store, Path("nowhere"))
    assert [row(page, "digits", "PGD", eps)["verdict"]["n"] for eps in (2.0, 4.0, 8.0)] == [30, 30, 20]
    store_findings(tmp_path, cells[:1], 30, FAILED)
    assert row(page_data(store, Path("nowhere")), "digits", "PGD", 2.0)["verdict"]["level"] == "FAIL"


def test_the_worst_case_is_no_better_than_any_attack_and_says_what_it_is_made_of(tmp_path: Path) -> None:
    """A reduced adaptive cell alone is none; beside AutoAttack it counts with the paper's attacks, on what all hold."""
    store = Store(tmp_path)
    weak = {"members": "square", "iterations": 100, "targets": 9, "queries": 1, "twin": "auto"}
    store_cell(store, "pgd", RADII[1], standing(120))
    store_cell(store, "adaptive", RADII[1], standing(290), protocol="adaptive", options=weak)
    assert row(page_data(store, Path("nowhere")), "digits", "PGD", 4.0)["worst"] is None
    store_cell(store, "autoattack", RADII[1], standing(200), protocol="standard", examples=250)
    page = page_data(store, Path("nowhere"))
    pgd = row(page, "digits", "PGD", 4.0)
    assert (pgd["worst"]["n"], pgd["worst"]["percent"]) == (250, pytest.approx(100 * 120 / 250, abs=1e-3))
    folders = [page["cells"][one["cell"]]["folder"].split("@")[0] for one in pgd["behind"]]
    assert sorted(folders) == ["digits/deq/adaptive", "digits/deq/autoattack", "digits/deq/pgd"]


def test_numbers_of_the_same_name_say_what_they_differ_in(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for chain in ([], ["2/255", "4/255"]):
        store_cell(store, "adaptive", RADII[2], standing(100), protocol="adaptive", chain=chain)
    for engine in ("packed", "reference"):
        store_cell(store, "pgd", RADII[2], standing(100), engine=engine)
    hows = {(r["attack"], r["how"]) for r in page_data(store, Path("nowhere"))["rows"]}
    assert hows == {
        ("adaptive", ""),
        ("adaptive", "after 2/255, 4/255"),
        ("PGD", ""),
        ("PGD", f"engine reference {ENGINES['reference']}"),
    }


def test_what_was_not_evaluated_is_none(data: dict[str, Any]) -> None:
    hostile = row(data, "digits", "PGD", 2.0)
    assert hostile["worst"] is hostile["certified"] is hostile["verdict"] is hostile["paper"] is None
    assert hostile["recipe"] == "unknown" and hostile["model"] == HOSTILE


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data


def test_nothing_of_the_store_is_markup(data: dict[str, Any]) -> None:
    elements = Elements(build_page(data))
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 2 and "img" not in tags
    assert not any(name.startswith("on") or name == "style" for _, attributes in elements.found for name in attributes)
    block = elements.inside["script"][0]
    assert not set("<>&") & set(block) and json.loads(block) == json.loads(json.dumps(data))


def test_only_our_own_script_may_run_and_nothing_be_fetched(data: dict[str, Any]) -> None:
    elements = Elements(build_page(data))
    (policy,) = (a["content"] for tag, a in elements.found if tag == "meta" and a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy
    for text in (elements.inside["script"][1], elements.inside["style"][0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    links = [
        value for _, a in elements.found for name, value in a.items() if name in ("src", "href", "action") and value
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    script = elements.inside["script"][1]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|XMLHttp", script)


@pytest.mark.parametrize("text", ["</script>", "<!--", "&amp;", "\u2028", '"\\', "<SCRIPT"])
def test_script_data_survives_and_stays_inside(text: str) -> None:
    written = as_script_data({"x": text})
    assert json.loads(written) == {"x": text} and not set("<>&\u2028") & set(written)


def test_what_is_no_number_is_null() -> None:
    written = as_script_data({"x": [float("nan"), {"y": float("-inf")}, 1.5, (2,)]})
    assert json.loads(written) == {"x": [None, {"y": None}, 1.5, [2]]}


def test_a_damaged_shard_is_told_and_the_others_shown(tmp_path: Path) -> None:
    store = made_up_store(tmp_path)
    next(iter(tmp_path.glob("mnist/deq/pgd@8-255-*/shard-00001.parquet"))).write_bytes(b"no parquet")
    data = page_data(store, Path("nowhere"))
    assert len(data["rows"]) == 12 and len(data["problems"]) == 1 and "damaged" in data["problems"][0]


def test_the_command_writes_the_page(tmp_path: Path, inside: Inside) -> None:
    made_up_store(tmp_path / "results/store")
    out = inside(tmp_path, "report", "--out", "page.html").stdout
    assert "page.html  (13 numbers" in out
    assert (tmp_path / "page.html").read_text() == build_page(page_data(Store(Path("results/store")), Path("nowhere")))
    assert "there is no folder" in last_line(inside(tmp_path, "report", "--store", "none", code=2))


def test_the_server_is_for_this_machine_alone() -> None:
    with make_server("<!doctype html>page", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = str(server.server_address[0]), int(server.server_address[1])
        assert host == "127.0.0.1"

        def answer(path: str, name: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(host, port, timeout=10)
            connection.request("GET", path, headers={"Host": name})
            response = connection.getresponse()
            return response.status, response.read()

        assert answer("/", f"localhost:{port}") == (200, b"<!doctype html>page")
        assert answer("/../etc/passwd", f"127.0.0.1:{port}")[0] == 404
        assert answer("/", f"rebound.example:{port}")[0] == 403
        with pytest.raises(BenchError, match="--port: cannot listen"), make_server("", port):
            pass
        server.shutdown()
    with pytest.raises(OSError):
        socket.create_connection((host, port), timeout=1)

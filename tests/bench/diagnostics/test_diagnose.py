"""`bench diagnose` as a user runs it: from the store, resumed, strict, beside a table; and what goes wrong."""

import json
from pathlib import Path

import pytest

from bench.diagnostics.suite import SUITE
from tests.bench.helpers import Inside, bench, last_line

TRAINING = ("--epochs", "3")
QUICK = ("zero-budget", "zero-gradient", "determinism")
BASE = ("deq", "--eps", "4,8", "--examples", "60", *TRAINING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model, its twin, and their cells."""
    folder = tmp_path_factory.mktemp("diagnose")
    bench(folder, "run", "--models", "deq,fc-linear", "--eps", "4,8", *TRAINING, "--workers", "1")
    return folder


def findings(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder / "results/store/diagnostics").rglob("*.json"))}


def test_from_the_store_and_what_it_lacks(folder: Path, inside: Inside) -> None:
    first = inside(folder, "diagnose", *BASE, "--only", ",".join(QUICK))
    assert set(findings(folder)) >= set(QUICK)
    stamps = {name: path.stat().st_mtime_ns for name, path in findings(folder).items()}
    again = inside(folder, "diagnose", *BASE, "--only", ",".join(QUICK))
    assert (
        again.stdout == first.stdout
        and f"partly diagnosed (3 of {len(SUITE)}): no sign of failure in 3 of 3" in first.stdout
    )
    assert {name: path.stat().st_mtime_ns for name, path in findings(folder).items()} == stamps
    findings(folder)["determinism"].unlink()
    inside(folder, "diagnose", *BASE, "--only", ",".join(QUICK))
    now = {name: path.stat().st_mtime_ns for name, path in findings(folder).items()}
    assert {name for name in now if now[name] != stamps[name]} == {"determinism"}, "one is computed, the others kept"


def test_what_a_file_says(folder: Path, inside: Inside) -> None:
    inside(folder, "diagnose", *BASE, "--only", "zero-gradient")
    content = json.loads(findings(folder)["zero-gradient"].read_text())
    assert content["result"]["name"] == "zero-gradient" and content["version"] == SUITE["zero-gradient"].version
    cells = content["identity"]["cells"]
    assert {(cell["attack"]["name"], cell["eps"]) for cell in cells} == {
        (attack, eps) for attack in ("ifgsm", "pgd") for eps in ("4/255", "8/255")
    }
    assert cells[0]["model"]["weights"] and content["identity"]["twin"]["architecture"] == "fc-linear"
    assert content["environment"]["packages"]["torch"] and content["seconds"] >= 0


def test_every_option_that_matters_is_in_the_key(folder: Path, inside: Inside) -> None:
    base = ("diagnose", "deq", "--eps", "4,8", *TRAINING, "--only", "determinism")
    places = set()
    for more in ((), ("--seed", "1"), ("--protocol", "paper-normalized"), ("--attacks", "pgd[steps=3]")):
        before = set((folder / "results/store/diagnostics").rglob("determinism.json"))
        inside(folder, *base, "--examples", "20", *more)
        places |= set((folder / "results/store/diagnostics").rglob("determinism.json")) - before
    assert len(places) == 4
    inside(folder, "diagnose", "deq", "--eps", "8,4", *TRAINING, "--only", "determinism", "--examples", "20")
    assert places >= set((folder / "results/store/diagnostics").rglob("n20/determinism.json")), "the order is not"


def test_the_verdict_beside_the_table(folder: Path, inside: Inside) -> None:
    table = ("table", "--models", "deq,fc-linear", "--eps", "4,8", *TRAINING, "--examples", "60")
    before = inside(folder, *table).stdout
    assert "Not diagnosed: deq, fc-linear" in before and "Verdict on" not in before
    inside(folder, "diagnose", *BASE)
    after = inside(folder, *table).stdout
    assert "Verdict on deq on digits, from 60 images: " in after and "Not diagnosed: fc-linear" in after
    records = json.loads(inside(folder, *table, "--format", "json").stdout)
    found = {record["model"]: record["verdict"] for record in records}
    assert found["fc-linear"] == "not diagnosed" and f"from 60 images: {found['deq']}" in after
    other = inside(folder, "table", "--models", "deq", "--eps", "8", *TRAINING).stdout
    assert "Not diagnosed: deq" in other, "other radii are another evaluation"


def test_strict_and_json(folder: Path, inside: Inside) -> None:
    control = ("diagnose", *BASE, "--protocol", "paper-normalized", "--only", "zero-budget")
    text = inside(folder, *control).stdout
    assert "FAIL" in text and f"partly diagnosed (1 of {len(SUITE)}): artefact" in text
    strict = inside(folder, *control, "--strict", code=2)
    assert last_line(strict) == "bench: --strict: FAIL in deq on digits: zero-budget."
    found = json.loads(inside(folder, *control, "--format", "json").stdout)
    assert (
        found[0]["verdict"] == f"partly diagnosed (1 of {len(SUITE)})" and found[0]["results"][0]["verdict"] == "FAIL"
    )
    inside(folder, "diagnose", *BASE, "--strict", "--only", "zero-budget")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lyadeq",), "no checkpoint of lyadeq, fc-linear on digits, which diagnosing lyadeq takes; run"),
        (("deq", "--only", "canari"), "unknown diagnostic 'canari': did you mean 'canary'?"),
        (("deq", "--eps", "0", *TRAINING), "--eps: a diagnosis takes at least one radius above 0."),
        (("no-such-model",), "unknown model 'no-such-model'"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], said: str, folder: Path, inside: Inside) -> None:
    assert said in last_line(inside(folder, "diagnose", *arguments, code=2))


FOREIGN = """
from torch import nn
from bench.registry import model

@model("elsewhere", pretrained=True)
def elsewhere(images):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, images.classes))
"""


def test_a_model_trained_elsewhere_needs_no_trained_twin(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "elsewhere.py").write_text(FOREIGN)
    only = ("--only", "canary,transfer,determinism", "--eps", "8", "--examples", "20")
    text = inside(tmp_path, "diagnose", "elsewhere", "--plugin", "elsewhere.py", *only).stdout
    assert text.count("n/a") == 2 and "has no checkpoint on digits" in " ".join(text.split())


def test_a_damaged_finding_says_so(folder: Path, inside: Inside) -> None:
    inside(folder, "diagnose", *BASE, "--only", "zero-gradient")
    findings(folder)["zero-gradient"].write_text("{")
    assert "delete it and run again" in last_line(inside(folder, "diagnose", *BASE, "--only", "zero-gradient", code=2))
    findings(folder)["zero-gradient"].unlink()

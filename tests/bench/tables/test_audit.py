"""`bench audit`: one line a model and radius, and what each of its numbers is."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from bench.paper.match import name_and_recipe, printed_of
from bench.statistics import Share
from bench.tables.audit import make_audits, render_audits
from bench.tables.table_lines import Line
from tests.bench.helpers import Inside

EIGHT = Fraction(8, 255)
COMMAND = ["audit", "--models", "fc-linear", "--epochs", "2", "--eps", "24", "--examples", "100"]


def line(attack: str, hits: int, kind: Literal["attack", "certificate"] = "attack") -> Line:
    return Line("mnist", "deq", attack, clean=Share(98, 100), robust={EIGHT: Share(hits, 100)}, kind=kind)


def test_every_number_finds_its_column() -> None:
    lines = {
        "paper": [line("I-FGSM", 70), line("PGD", 71), line("certificate", 11, "certificate")],
        "paper-normalized": [line("PGD (control)", 15)],
        "adaptive": [line("adaptive", 66)],
    }
    (audit,) = make_audits(lines, {("mnist", "deq", None): "weak attack"})
    printed = printed_of("mnist", "deq")
    assert audit.printed == {"ifgsm": printed["ifgsm", EIGHT], "pgd": printed["pgd", EIGHT]}
    header, *body = render_audits([audit], "terminal").splitlines()
    first = body[1]
    at = {name: header.index(name) for name in ("Clean", "Paper printed", "paper protocol", "worst case", "Certified")}
    assert first[at["Clean"] :].startswith("98.00")
    assert first[at["Paper printed"] :].startswith(f"I-FGSM {audit.printed['ifgsm']:.2f}")
    assert first[at["paper protocol"] :].startswith("I-FGSM 70.00 [")
    assert first[at["worst case"] :].startswith("66.00") and first[at["Certified"] :].startswith("11.00")
    assert first.rstrip().endswith("weak attack")
    assert f"I-FGSM {audit.printed['ifgsm']:.2f}<br>PGD" in render_audits([audit], "markdown")
    records = json.loads(render_audits([audit], "json"))
    assert {(r["what"], r["attack"]): (r["accuracy"], r["n"]) for r in records if r["what"] != "printed"} == {
        ("clean", ""): (98, 100),
        ("paper", "I-FGSM"): (70, 100),
        ("paper", "PGD"): (71, 100),
        ("paper-normalized", "PGD (control)"): (15, 100),
        ("adaptive", "adaptive"): (66, 100),
        ("certified", ""): (11, 100),
    }


def test_certified_is_what_any_certificate_proves() -> None:
    def proof(name: str, *proven: int) -> Line:
        right = np.array(proven, bool)
        found = line(name, 0, "certificate")
        found.robust, found.right = {EIGHT: Share(int(right.sum()), len(right))}, {EIGHT: right}
        return found

    one, other = proof("certificate[a]", 1, 1, 0, 0), proof("certificate[b]", 0, 1, 1, 0)
    for lines in ([one, other], [other, one], [one, other, one]):
        (audit,) = make_audits({"paper": lines, "adaptive": lines}, {})
        assert audit.certified == Share(3, 4)
    (audit,) = make_audits({"paper": [line("certificate[a]", 40, "certificate"), other]}, {})
    assert audit.certified == Share(2, 4), "where images are not known, the larger share"
    (audit,) = make_audits({"paper": [line("certificate[a]", 60, "certificate"), other]}, {})
    assert audit.certified == Share(60, 100)


def test_labels_are_matched_with_the_papers_rows() -> None:
    assert name_and_recipe("ibp-mondeq+ibp[lr=3e-3,epochs=40]") == ("ibp-mondeq", "ibp")
    assert name_and_recipe("lyadeq+trades[epochs=3]") == ("lyadeq+trades", "trades")
    assert name_and_recipe("no,such[name") == ("no,such[name", "unknown")
    assert printed_of("mnist", "ibp-mondeq+ibp[epochs=40]") == printed_of("mnist", "ibp-mondeq") != {}
    # Another radius of certification, or another reading, is another model than the paper's.
    assert printed_of("mnist", "ibp-mondeq[eps=0.1]") == printed_of("mnist", "lyadeq[readout=step]") == {}
    assert printed_of("digits", "deq") == {}


def test_the_program_computes_prints_and_reads_back(inside: Inside, tmp_path: Path) -> None:
    before = inside(tmp_path, *COMMAND, "--no-run", code=0).stdout
    assert "fc-linear" not in before
    computed = inside(tmp_path, *COMMAND, "--no-diagnosis", "--format", "json").stdout
    read = inside(tmp_path, *COMMAND, "--no-run", "--format", "json").stdout
    assert computed[computed.index("[\n") :] == read
    records = {(r["what"], r["attack"]): r for r in json.loads(read)}
    assert set(records) == {
        ("clean", ""), ("paper", "I-FGSM"), ("paper", "PGD"), ("paper-normalized", "I-FGSM (control)"),
        ("paper-normalized", "PGD (control)"), ("adaptive", "adaptive"),
    }  # fmt: skip
    worst, usual = records["adaptive", "adaptive"], records["paper", "PGD"]
    assert worst["n"] == usual["n"] == 100 and worst["accuracy"] <= usual["accuracy"]
    assert worst["verdict"] == "not diagnosed"
    shown = inside(tmp_path, *COMMAND, "--no-run").stdout
    assert f"{worst['accuracy']:.2f} [{worst['low']:.1f}, {worst['high']:.1f}]" in shown
    done = inside(tmp_path, *COMMAND, "--protocol", "paper", code=2)
    assert "leave --protocol, --attacks out" in done.stderr

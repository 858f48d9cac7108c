"""Verdicts from intervals, and one reading from many verdicts."""

import json
from math import comb
from pathlib import Path

import pytest

from bench.diagnostics.overall_reading import read
from bench.diagnostics.result import DiagnosticResult, Symptom, of_share
from bench.statistics import newcombe, paired_difference
from bench.thresholds import GRADIENT_DEAD, Thresholds, Verdict
from tests.bench.helpers import Inside


def result(name: str, verdict: Verdict, sign: Symptom | None) -> DiagnosticResult:
    return DiagnosticResult(name, verdict, "", sign=sign)


@pytest.mark.parametrize(
    ("fired", "verdict"),
    [
        (["zero-budget", "known-images", "state", "gradient", "convergence", "solver"], "artefact"),
        (["known-images", "state", "gradient"], "contaminated"),
        (["state", "gradient"], "unsteady"),
        (["gradient", "convergence", "solver"], "masking"),
        (["convergence", "solver"], "weak attack"),
        (["solver", "sandwich"], "non-convergence"),
        (["sandwich"], "broken claim"),
        ([], "no sign of failure"),
    ],
)
def test_precedence(fired: list[str], verdict: str) -> None:
    signs: dict[str, Symptom] = {
        "sandwich": "broken claim",
        "solver": "non-convergence",
        "convergence": "weak attack",
        "gradient": "masking",
        "state": "unsteady",
        "known-images": "contaminated",
        "zero-budget": "artefact",
    }
    reading = read([result(name, "FAIL" if name in fired else "OK", sign) for name, sign in signs.items()])
    assert reading.name == verdict and reading.failed == bool(fired)
    assert all(f"{name} FAIL" in reading.sentence for name in fired)


def test_what_is_no_sign_is_noted_and_no_more() -> None:
    reading = read([result("lyapunov", "WARN", None), result("canary", "OK", "weak attack")])
    assert reading.name == "no sign of failure" and "noted: lyapunov WARN" in reading.sentence
    assert not reading.failed


def test_the_interval_crosses_the_line_not_the_point() -> None:
    lines = Thresholds(warn=0.1, fail=0.2)
    verdicts = [of_share("x", hits, 100, lines, "", None).verdict for hits in (11, 20, 25, 40)]
    assert verdicts == ["OK", "WARN", "WARN", "FAIL"]
    assert of_share("x", 1, 1000, Thresholds(warn=0.0), "", None).verdict == "WARN", "a line at 0 means any"
    assert of_share("x", 0, 1000, Thresholds(warn=0.0), "", None).verdict == "OK"


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.05), (0.1, 0.02), (0.0, 0.01)])
def test_paired_difference_covers(first: float, second: float) -> None:
    """Coverage summed exactly over the trinomial distribution of discordant pairs."""
    n, covered = 60, 0.0
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            low, high = paired_difference(lost, won, n)[1]
            if low <= first - second <= high:
                rest = n - lost - won
                ways = comb(n, lost) * comb(n - lost, won)
                covered += ways * first**lost * second**won * (1 - first - second) ** rest
    assert covered > 0.93
    assert paired_difference(3, 1, n)[0] == pytest.approx(2 / 60)


def test_newcombe() -> None:
    """The worked example (a) of Newcombe 1998, Table II, method 10: 56 of 70 against 48 of 80."""
    value, (low, high) = newcombe(56, 70, 48, 80)
    assert value == pytest.approx(0.2) and (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_results_survive_json() -> None:
    found = of_share("x", 3, 10, Thresholds(fail=0.0), "three of ten", "masking", {"a": 1, "b": "c"})
    assert DiagnosticResult.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_nothing_to_judge_is_no_verdict() -> None:
    empty = of_share("gradient", 0, 0, GRADIENT_DEAD, "0 of 0 images.", "masking")
    assert empty.verdict == "n/a" and empty.value is None


def test_a_diagnosis_of_a_few_images_is_not_a_tables_verdict(inside: Inside, tmp_path: Path) -> None:
    given = ["--models", "fc-linear", "--epochs", "1", "--eps", "8"]
    inside(tmp_path, "run", *given)
    inside(tmp_path, "diagnose", *given, "--examples", "3")
    assert "not diagnosed" in inside(tmp_path, "table", *given).stdout
    few = inside(tmp_path, "table", *given, "--examples", "3").stdout
    assert "not diagnosed" not in few and "from 3 images: " in few

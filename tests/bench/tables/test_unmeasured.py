"""What was not measured is a dash, never 0."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.load import Dataset
from bench.diagnostics.gradient import gradient
from bench.evaluation.offered_views import Inside
from bench.settings.config import Config
from bench.tables.broken_by import broken_by_lines
from bench.tables.stage_counts import Counts, stage_counts, unseen
from bench.tables.table import budget_lines
from bench.tables.table_lines import Line
from tests.bench.diagnostics.cases import make_case
from tests.bench.helpers import Inside as Program
from tests.conftest import Trained

QUICK = ("--eps", "16", "--epochs", "2", "--examples", "60")
ALL = "adaptive[iterations=2,queries=20,targets=1]"


def table(out: str, first: str) -> list[dict[str, str]]:
    """Rows of the plain table whose first heading is `first`, by column."""
    lines = out[out.index(first) :].splitlines()
    lines = [line for number, line in enumerate(lines) if not number or line.startswith("digits ")]
    starts = [at for at in range(len(lines[0])) if lines[0][at] != " " and (at < 2 or lines[0][at - 2 : at] == "  ")]
    cuts = list(zip(starts, [*starts[1:], None], strict=True))
    head, *body = [[line[a:b].strip() for a, b in cuts] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in body]


def test_the_budget_of_a_network_without_a_solver(tmp_path: Path, inside: Program) -> None:
    out = inside(tmp_path, "run", "--models", "fc-linear,deq", "--attacks", "ifgsm", *QUICK).stdout
    plain, implicit = table(out, "Budget")
    assert [plain[name] for name in ("f-evaluations", "VJPs", "unconverged")] == ["—", "—", "—"]
    assert int(implicit["f-evaluations"].replace(",", "")) > 60 and implicit["unconverged"].isdigit()
    assert int(plain["forwards"].replace(",", "")) > 60 and int(plain["backwards"].replace(",", "")) > 0


def test_a_count_of_none_is_measured_where_others_are(tmp_path: Path, inside: Program) -> None:
    """A one-step gradient takes no vector–Jacobian product, and that is a count."""
    out = inside(tmp_path, "run", "--models", "deq[gradient=one-step]", "--attacks", "ifgsm", *QUICK).stdout
    (row,) = table(out, "Budget")
    assert row["VJPs"] == "0" and row["f-evaluations"] not in ("0", "—")


def test_lines_of_several_seeds_sum_what_is_known() -> None:
    eps = Fraction(8, 255)
    lines = [Line("digits", "deq", "PGD", robust={eps: None}, train_seed=seed) for seed in (0, 1)]  # type: ignore[dict-item]
    assert table(budget_lines(lines), "Budget")[0]["unconverged"] == "—"
    lines[0].unconverged = 0
    assert table(budget_lines(lines), "Budget")[0]["unconverged"] == "0"


def test_stages_that_a_model_cannot_run(tmp_path: Path, inside: Program) -> None:
    base = ("run", "--models", "fc-linear,deq", "--protocol", "adaptive", "--attacks", ALL, *QUICK, "--eps", "4")
    out = inside(tmp_path, *base).stdout
    plain, implicit = table(out, "Broken first by")
    for stage in ("unrolled", "intermediate", "simultaneous", "no-projection", "detached", "twin"):
        assert plain[stage] == "—", stage
    for stage in ("apgd-ce", "apgd-margin-t", "apgd-margin", "square"):
        assert plain[stage].isdigit(), stage
    assert implicit["unrolled"].isdigit() and implicit["twin"].isdigit()
    assert implicit["no-projection"] == implicit["detached"] == "—", "those of a Lyapunov module"
    assert "NOTE" not in out


class _Cell:
    attack, twin = "adaptive", None

    def __init__(self, members: str) -> None:
        self.attack_options = {"members": members, "iterations": 1, "targets": 1, "queries": 1, "twin": "auto"}


def outcomes(clean: list[int], broken_by: list[int], residual: float = np.nan) -> dict[str, Any]:
    zeros = np.zeros(len(clean), np.int32)
    residuals = np.full(len(clean), residual)
    return {"label": zeros, "clean": np.array(clean), "broken_by": np.array(broken_by), "residual": residuals}


def test_a_stage_behind_the_last_image_was_not_run() -> None:
    cell: Any = _Cell("apgd-ce+apgd-margin+square")
    everything = Inside(frozenset(), False)
    # The second image is wrong when clean, and attacked by no stage.
    assert list(stage_counts(cell, outcomes([0, 1], [0, -1]), everything).values()) == [1, None, None]
    assert list(stage_counts(cell, outcomes([0, 0], [0, 1]), everything).values()) == [1, 1, None]
    assert list(stage_counts(cell, outcomes([0, 0], [0, 2]), everything).values()) == [1, 0, 1]
    assert list(stage_counts(cell, outcomes([0, 0], [0, -1]), everything).values()) == [1, 0, 0]
    assert list(stage_counts(cell, outcomes([1], [-1]), everything).values()) == [None, None, None]


def test_a_column_that_only_another_model_has() -> None:
    eps = Fraction(8, 255)
    by_model: dict[str, Counts] = {"a": {"x": 1}, "b": {"y": 0}}
    lines = [Line("digits", name, "adaptive", broken_by_stage={eps: counts}) for name, counts in by_model.items()]
    rows = table(broken_by_lines(lines), "Broken first by")
    assert [(row["x"], row["y"]) for row in rows] == [("1", "—"), ("—", "0")]


@pytest.mark.parametrize(
    ("members", "known", "residual", "expected"),
    [
        ("all", Inside(frozenset(), True), np.nan, ["unrolled", "intermediate", "simultaneous"]),
        ("all", Inside(frozenset(), False), 1e-7, ["unrolled", "intermediate", "simultaneous"]),
        ("all", Inside(frozenset({"unrolled"}), True), np.nan, ["intermediate", "simultaneous"]),
        ("all", Inside(frozenset(), False), np.nan, []),
        ("apgd-ce+square", Inside(frozenset(), True), 1e-7, []),
        ("all", Inside(frozenset({"unrolled", "intermediate", "simultaneous"}), True), 1e-7, []),
    ],
)
def test_views_that_an_implicit_model_keeps_to_itself(
    members: str, known: Inside, residual: float, expected: list[str]
) -> None:
    cell: Any = _Cell(members)
    assert unseen(cell, outcomes([0], [-1], residual), known) == expected


NO_VIEWS = """
import torch
from torch import nn
from bench.registry import model
from bench.models.images import Classifier

class Body(nn.Module):
    '''z = tanh(W z + U x), by plain iteration.'''
    def __init__(self, images):
        super().__init__()
        self.u, self.w, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, images.classes)

    def forward(self, x):
        h = self.u(x.flatten(1))
        z = torch.zeros_like(h)
        for _ in range(10):
            z = torch.tanh(0.1 * self.w(z) + h)
        return self.head(z)

@model("shy")
def shy(images, *, tol: float = 1e-3):
    '''An implicit model that offers no views.'''
    return Classifier(images, Body(images))
"""


def test_the_note_under_the_table_of_an_implicit_model_without_views(tmp_path: Path, inside: Program) -> None:
    (tmp_path / "shy.py").write_text(NO_VIEWS)
    base = ("run", "--models", "shy,deq,fc-linear", "--plugin", "shy.py", *QUICK, "--eps", "4")
    out = inside(tmp_path, *base, "--protocol", "adaptive", "--attacks", ALL).stdout
    (note,) = [line for line in out.splitlines() if line.startswith("NOTE")]
    assert "shy" in note and "unrolled, intermediate, simultaneous" in note and "not the worst case known" in note
    assert "deq" not in note and "fc-linear" not in note
    assert "NOTE" not in inside(tmp_path, *base, "--attacks", "ifgsm").stdout


@pytest.fixture
def make(trained: Trained, digits: Dataset, config: Config) -> Callable[[str], Any]:
    return lambda name: make_case(name, trained, digits, config, n=60)


def test_agreement_with_a_converged_gradient_needs_a_tolerance(make: Callable[[str], Any]) -> None:
    plain, implicit = (gradient(make(name)) for name in ("fc-linear", "deq"))
    assert str(plain.evidence["agreement of signs"]).startswith("n/a") and "converged gradient" not in plain.sentence
    assert float(implicit.evidence["agreement of signs"]) > 0.95 and "converged gradient" in implicit.sentence
    assert plain.verdict == implicit.verdict == "OK"

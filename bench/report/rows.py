"""From stored outcomes to the lines of a table: accuracies with n and interval."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from bench.cells import Cell
from bench.errors import BenchError
from bench.outcomes import Budget, Outcomes
from bench.statistics import wilson
from bench.store import Store

ABSENT = "not in the store"


@dataclass(frozen=True)
class Share:
    """A proportion of n examples, with its 95 % Wilson interval."""

    hits: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """In per cent."""
        low, high = wilson(self.hits, self.n)
        return 100 * low, 100 * high


@dataclass
class Line:
    """One line of a table: a model under one attack, or a model that failed."""

    dataset: str
    model: str
    attack: str = ""
    clean: Share | None = None
    robust: dict[Fraction, Share] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    unconverged: int = 0
    failure: str = ""
    verdict: str = ""  # of the diagnostics, on the model under the protocol


def clean_share(outcomes: Outcomes) -> Share:
    """Classified correctly when not attacked."""
    return Share(int(np.sum(outcomes["clean"] == outcomes["label"])), len(outcomes["label"]))


def robust_share(outcomes: Outcomes) -> Share:
    """Classified correctly both clean and under attack."""
    right = (outcomes["clean"] == outcomes["label"]) & (outcomes["adversarial"] == outcomes["label"])
    return Share(int(np.sum(right)), len(right))


def make_lines(rows: Iterable[tuple[str, str, list[Cell], str]], store: Store, examples: int) -> list[Line]:
    """Lines in the order of the rows.

    Args:
        rows: (data set, model label, cells, failure) each.
        examples: the first n test images, 0: all. Cells the store lacks leave their column empty.
    """
    lines: list[Line] = []
    for dataset, label, cells, failed in rows:
        failure = failed
        by_attack: dict[tuple[str, str], Line] = {}
        for cell in cells:
            try:
                outcomes = store.outcomes(cell, examples)
                spent = store.budget(cell, examples) if outcomes else Budget()
            except BenchError as error:
                failure = failure or str(error)
                continue
            if outcomes is None:
                continue
            line = by_attack.setdefault((cell.attack, cell.attack_label), Line(dataset, label, cell.attack_label))
            line.clean = clean_share(outcomes)
            line.robust[cell.eps] = robust_share(outcomes)
            line.budget.add(spent)
            line.unconverged += _unconverged(cell, outcomes)
        lines += by_attack.values()
        if failure or not by_attack:
            lines.append(Line(dataset, label, failure=failure or ABSENT))
    return lines


def _unconverged(cell: Cell, outcomes: Outcomes) -> int:
    tol = cell.source.options.get("tol")
    return int(np.sum(outcomes["residual"] >= tol)) if tol is not None else 0

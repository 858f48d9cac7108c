"""From stored outcomes to the lines of a table: accuracies with n and interval."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.evaluation.budget import Budget
from bench.evaluation.certificates import CERTIFICATE
from bench.evaluation.outcomes import Outcomes
from bench.execution.matrix_rows import Row
from bench.statistics import Share
from bench.store.cells import Cell
from bench.store.store import Store
from bench.tables.certificate_conflicts import broken_certificates
from bench.tables.doubts import Doubt, find_doubts
from bench.tables.stage_counts import Counts, stage_counts, unseen

ABSENT = "not in the store"

Correct = NDArray[Any]  # bool, one per example: right, or not


@dataclass
class Line:
    """One model of one training seed under one attack, or with one of its certificates, or a model that failed.

    Attributes:
        robust: by radius, the share that is right both clean and attacked; of a certificate, clean and proven.
        kind: what `robust` is a share of. A model without certificate has an empty line of that kind where
            another model of the table has one.
        train_seed: None where weights came with the model.
        note: what the label does not say of the training: other epochs than bench.toml's, a reduced data set.
        verdict: of the diagnostics, on the model under the protocol.
        unconverged: equilibria that missed the solver's tolerance; None where none is reported.
        broken_by_stage: by radius, how many examples each stage of a cascade broke first; None of one that was not run.
        doubts: by radius, why the number may be made up.
        unseen: views of its states that an implicit model keeps from an attack that would follow them.
        clean_right, right: verdict per example behind `clean`, and behind `robust` at each radius.
    """

    dataset: str
    model: str
    attack: str = ""
    clean: Share | None = None
    robust: dict[Fraction, Share] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    unconverged: int | None = None
    failure: str = ""
    kind: Literal["attack", "certificate"] = "attack"
    train_seed: int | None = None
    note: str = ""
    verdict: str = ""
    broken_by_stage: dict[Fraction, Counts] = field(default_factory=dict)
    doubts: dict[Fraction, tuple[Doubt, ...]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    clean_right: Correct | None = None
    right: dict[Fraction, Correct] = field(default_factory=dict)

    @property
    def absent(self) -> bool:
        """Whether nothing failed, and the store lacks what was asked for."""
        return self.failure.startswith(ABSENT)

    def add(self, eps: Fraction, outcomes: Outcomes, right: Correct, budget: Budget) -> None:
        """Take in one cell's outcomes and what counts as right in them."""
        self.clean, self.clean_right = clean_share(outcomes), outcomes["clean"] == outcomes["label"]
        self.robust[eps], self.right[eps] = _share(right), right
        self.budget.add(budget)


def clean_share(outcomes: Outcomes) -> Share:
    """Classified correctly when not attacked."""
    return _share(outcomes["clean"] == outcomes["label"])


def robust_right(outcomes: Outcomes) -> Correct:
    """Classified correctly both clean and under attack, (N,)."""
    return (outcomes["clean"] == outcomes["label"]) & (outcomes["adversarial"] == outcomes["label"])


def robust_share(outcomes: Outcomes) -> Share:
    """Classified correctly both clean and under attack."""
    return _share(robust_right(outcomes))


def certified_right(outcomes: Outcomes) -> Correct:
    """Classified correctly and certified, (N,)."""
    return (outcomes["clean"] == outcomes["label"]) & outcomes["certified"]


def make_lines(rows: Sequence[Row], store: Store, examples: int) -> list[Line]:
    """Lines in the order of the rows, a model's certificates after its attacks.

    Args:
        rows: with their cells, or with what keeps them from having any.
        examples: the first n test images, 0: all. Cells the store lacks leave their column empty.
    """
    lines: list[Line] = []
    certificates = any(row.certificates for row in rows)
    for row in rows:
        here, failure = _row_lines(row, store, examples)
        if certificates and here and here[-1].kind != CERTIFICATE:
            here.append(_line(row, CERTIFICATE, kind="certificate", clean=here[0].clean))
        lines += here
        if failure or not here:
            lines.append(_line(row, failure=failure or _absent(row, store)))
    return lines


def _absent(row: Row, store: Store) -> str:
    """That the store lacks what was asked for; and where it holds fewer images, how many."""
    most = max((store.available(cell) for cell in row.cells), default=0)
    return f"{ABSENT}: of the first {most} images it is, --examples {most}" if most else ABSENT


def _row_lines(row: Row, store: Store, examples: int) -> tuple[list[Line], str]:
    """The row's lines with numbers, and what kept it from more."""
    failure = row.failure
    by_attack: dict[tuple[str, str, str], Line] = {}
    found: list[tuple[Cell, Outcomes]] = []
    for cell in (*row.cells, *row.certificates):
        try:
            outcomes = store.outcomes(cell, examples)
            spent = store.budget(cell, examples) if outcomes else Budget()
        except BenchError as error:
            failure = failure or str(error)
            continue
        if outcomes is None:
            continue
        found.append((cell, outcomes))
        kind: Literal["attack", "certificate"] = "certificate" if cell.certificate else "attack"
        line = by_attack.setdefault((kind, cell.attack, cell.attack_label), _line(row, cell.attack_label, kind=kind))
        line.add(cell.eps, outcomes, certified_right(outcomes) if cell.certificate else robust_right(outcomes), spent)
        notes = (store.manifest(cell) or {}).get("notes", ())
        missed = None if cell.certificate else _unconverged(cell, outcomes)
        if doubts := find_doubts(cell, outcomes, missed or 0, notes, spent.backwards):
            line.doubts[cell.eps] = doubts
        if not cell.certificate:
            if missed is not None:
                line.unconverged = (line.unconverged or 0) + missed
            if counts := stage_counts(cell, outcomes, row.inside):
                line.broken_by_stage[cell.eps] = counts
            line.unseen = unseen(cell, outcomes, row.inside)
    return list(by_attack.values()), failure or " ".join(broken_certificates(found))


def _line(row: Row, label: str = "", **fields: Any) -> Line:
    return Line(row.dataset, row.label, label, train_seed=row.train_seed, note=row.note, **fields)


def _share(right: Correct) -> Share:
    return Share(int(np.sum(right)), len(right))


def _unconverged(cell: Cell, outcomes: Outcomes) -> int | None:
    tol = cell.source.options.get("tol")
    residual = outcomes["residual"]
    if tol is None or np.isnan(residual).all():  # it reports none
        return None
    return int(np.sum(~(residual < tol)))

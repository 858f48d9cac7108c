"""A matrix and its rows: one model, trained with one seed, on one data set, at one of three stages.

A row is planned when its names are resolved, ready when its weights are there and its cells are known, and failed when
something keeps it from having numbers. None is changed in place: each stage makes new rows of those before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from bench.data.load import Dataset
from bench.evaluation.offered_views import Inside
from bench.registry import AttackEntry
from bench.store.cells import Cell
from bench.training.job_identity import Job


@dataclass(frozen=True)
class AttackPlan:
    """One attack of the protocol at one radius, options resolved."""

    entry: AttackEntry
    label: str
    options: Mapping[str, Any]
    eps: Fraction


@dataclass(frozen=True)
class PlannedRow:
    """A model that may have to be trained first; it has no cells.

    Attributes:
        twins: the undefended twins that attacks start from, by how the attack's option names them.
        note: what the label does not say of its training: other epochs than bench.toml's.
    """

    label: str
    dataset: str
    job: Job
    twins: Mapping[str, Job] = field(default_factory=dict)
    note: str = ""
    planned: tuple[tuple[AttackPlan, Cell], ...] = field(default=(), init=False)
    certificates: tuple[Cell, ...] = field(default=(), init=False)
    failure: str = field(default="", init=False)
    inside: Inside = field(default_factory=Inside, init=False)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return ()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The model's own, and its twins'."""
        return (self.job, *self.twins.values())

    @property
    def train_seed(self) -> int | None:
        """None where weights came with the model."""
        return None if self.job.pretrained else self.job.seed


@dataclass(frozen=True)
class ReadyRow:
    """A model whose weights are there, with its cells.

    Attributes:
        plan: the row as it was planned.
        planned: per attack of the matrix, in its order, the plan and its cell.
        certificates: cells of what the model proves of itself, one per radius; empty where it offers nothing.
        note: that of the plan, and that its training set was reduced.
        inside: what the model lets attacks see of how it computes.
        failure: why some of its cells have no numbers, in one line.
    """

    plan: PlannedRow
    planned: tuple[tuple[AttackPlan, Cell], ...]
    certificates: tuple[Cell, ...]
    note: str
    inside: Inside = field(default_factory=Inside)
    failure: str = ""

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for _, cell in self.planned)

    @property
    def label(self) -> str:
        return self.plan.label

    @property
    def dataset(self) -> str:
        return self.plan.dataset

    @property
    def job(self) -> Job:
        return self.plan.job

    @property
    def twins(self) -> Mapping[str, Job]:
        return self.plan.twins

    @property
    def train_seed(self) -> int | None:
        return self.plan.train_seed


@dataclass(frozen=True)
class FailedRow:
    """A model without numbers: `failure` says why, in one line; it is empty where no checkpoint was looked for.

    `job` is None where the name resolves to nothing.
    """

    label: str
    dataset: str
    failure: str
    job: Job | None = None
    note: str = ""
    planned: tuple[tuple[AttackPlan, Cell], ...] = field(default=(), init=False)
    certificates: tuple[Cell, ...] = field(default=(), init=False)
    inside: Inside = field(default_factory=Inside, init=False)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return ()

    @property
    def train_seed(self) -> int | None:
        return None if self.job is None or self.job.pretrained else self.job.seed


Row = PlannedRow | ReadyRow | FailedRow


def failed(row: PlannedRow, why: str) -> FailedRow:
    """The row as it stands when something keeps it from having cells."""
    return FailedRow(row.label, row.dataset, why, row.job, row.note)


@dataclass(frozen=True)
class Matrix:
    """Everything a run needs: the data, the rows, the attacks, the radii."""

    data: Mapping[str, Dataset]
    rows: tuple[Row, ...]
    attacks: tuple[AttackPlan, ...]
    eps: tuple[Fraction, ...]

    def with_rows(self, rows: Sequence[Row]) -> "Matrix":
        return replace(self, rows=tuple(rows))

    @property
    def failures(self) -> list[str]:
        """Why rows have no, or not all, numbers."""
        return [row.failure for row in self.rows if row.failure]

"""Accuracy against the radius, from the store: one series for each model and attack."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from bench.evaluation.outcomes import Outcomes
from bench.statistics import Share
from bench.store.stored_cells import StoredCell
from bench.tables.table_lines import clean_share, robust_share


@dataclass
class Series:
    """A model under one attack: its accuracy at every radius that the store holds, 0 the accuracy without attack.

    Attributes:
        control: whether it is no measure of robustness (see bench/evaluation/input_space.py).
        cells: what each radius comes from.
    """

    dataset: str
    model: str
    protocol: str
    attack: str
    points: dict[Fraction, Share] = field(default_factory=dict)
    cells: dict[Fraction, StoredCell] = field(default_factory=dict)

    @property
    def control(self) -> bool:
        return self.attack.endswith("(control)")

    @property
    def counts(self) -> tuple[int, int]:
        """The least and the most examples behind a point."""
        counts = [share.n for share in self.points.values()]
        return min(counts), max(counts)


def make_series(stored: Sequence[StoredCell], examples: int) -> list[Series]:
    """Series of cells that are one model's: same weights and options, data, attack seed, device, engine with batches.

    Args:
        stored: cells, of any models, protocols and radii.
        examples: the first n test images, cells with fewer are left out; 0: all that each cell holds.
    """
    found: dict[tuple[object, ...], Series] = {}
    # Of one radius under several chains of smaller ones, the longest chain has broken most and comes last.
    for one in sorted(stored, key=lambda one: len(one.cell.identity.chain or ())):
        cell = one.cell
        if examples > cell.examples:
            continue
        outcomes = first(one, examples)
        place = (cell.identity.place(), cell.seed, cell.identity.engine, cell.identity.engine_version, cell.batch)
        key = (place, one.label, cell.protocol, cell.attack_label)
        series = found.setdefault(key, Series(cell.dataset, one.label, cell.protocol, cell.attack_label))
        series.points.setdefault(Fraction(0), clean_share(outcomes))
        if cell.eps:
            series.points[cell.eps] = robust_share(outcomes)
        series.cells[cell.eps] = one
    for series in found.values():
        series.points = dict(sorted(series.points.items()))
    return list(found.values())


def first(stored: StoredCell, examples: int) -> Outcomes:
    """The outcomes of the first n examples, 0: all."""
    return {name: column[: examples or None] for name, column in stored.outcomes.items()}

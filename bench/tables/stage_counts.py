"""What a cascade's stages did on one model: how many examples each broke first, and which could not run."""

from collections.abc import Sequence

import numpy as np

from bench.evaluation.offered_views import STATE_VIEWS, Inside
from bench.evaluation.outcomes import Outcomes
from bench.registry import attack
from bench.store.cells import Cell

# Examples by stage; None of a stage that was not run.
Counts = dict[str, int | None]


def stage_counts(cell: Cell, outcomes: Outcomes, inside: Inside) -> Counts:
    """Examples by the stage that broke them first, in the stages' order; empty for an attack without stages.

    None stands for a stage that was not run: the model lacks the view it follows, or nothing stood before it.
    """
    names = _stages(cell)
    lacking = missing_views(cell, inside)
    right, by = outcomes["clean"] == outcomes["label"], outcomes["broken_by"]
    found: Counts = {}
    for number, name in enumerate(names):
        idle = name in lacking or not np.any(right & ((by < 0) | (by >= number)))
        found[name] = None if idle else int(np.sum(by == number))
    return found


def missing_views(cell: Cell, inside: Inside) -> list[str]:
    """The stages chosen that follow a view which the model does not offer."""
    needed = attack[cell.attack].traits.views
    if inside.views is None:
        return []
    offered = inside.views | ({"twin"} if cell.twin is not None else set())
    return [name for name in _stages(cell) if name in needed and name not in offered]


def unseen(cell: Cell, outcomes: Outcomes, inside: Inside) -> list[str]:
    """The views of its states that an implicit model keeps from an attack made for them; empty for any other model.

    One that reports an equilibrium's residual is implicit, too.
    """
    implicit = inside.implicit or not np.isnan(outcomes["residual"]).all()
    return [name for name in missing_views(cell, inside) if name in STATE_VIEWS] if implicit else []


def _stages(cell: Cell) -> Sequence[str]:
    stages = attack[cell.attack].traits.stages
    return list(stages(**cell.attack_options)) if stages else []

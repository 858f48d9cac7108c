"""What a model lets attacks see of how it computes, told without running it."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from bench.attacks.core.surrogate_views import find_views

# The views of its states that an implicit model needs, for its worst case to be looked for.
STATE_VIEWS = ("unrolled", "intermediate", "simultaneous")


@dataclass(frozen=True)
class Inside:
    """What a model lets attacks see of how it computes.

    Attributes:
        views: names of its views, None where they are not known.
        implicit: whether it is known to solve for an equilibrium.
    """

    views: frozenset[str] | None = None
    implicit: bool = False


def look_inside(net: nn.Module, options: Collection[str]) -> Inside:
    """What can be told of a model without running it.

    Args:
        options: names of the architecture's options; one called `tol` is a solver's.
    """
    library = any(type(module).__module__.partition(".")[0] == "torchdeq" for module in net.modules())
    try:
        views = frozenset(find_views(net))
    except Exception:  # of the model's own code; an attack that asks for them says what is wrong
        return Inside(None, library or "tol" in options)
    return Inside(views, library or "tol" in options)

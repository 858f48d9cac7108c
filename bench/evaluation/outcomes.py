"""Outcomes of a shard: one value per example in each column."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Column name to one value per example, (N,).
Outcomes = dict[str, NDArray[Any]]


def same_outcomes(a: Outcomes, b: Outcomes) -> bool:
    """Whether two shards hold the same: verdicts to the bit, ‖δ‖∞ up to rounding; a residual at the solver's
    tolerance is rounding. What gradients were like decides no verdict, and older shards do not say."""
    other = {"linf", "residual", "gradient"}
    names = a.keys() - other
    return (
        names == b.keys() - other
        and all(a[name].tobytes() == b[name].tobytes() for name in names)
        and np.allclose(a["linf"], b["linf"], rtol=0, atol=1e-5)
    )

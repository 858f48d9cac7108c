"""Intervals for proportions, and whether two of them on the same examples differ."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Z95 = 1.959963984540054


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of hits / n, in [0, 1]; (0, 1) for n = 0 (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, Z95 * Z95 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At the ends rounding would leave the share itself outside by an ulp.
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def newcombe(hits: int, n: int, other: int, m: int) -> tuple[float, tuple[float, float]]:
    """hits / n − other / m of independent samples with its 95 % interval, from the two Wilson intervals (Newcombe 1998,
    method 10); n, m ≥ 1."""
    p, q = hits / n, other / m
    (low_p, high_p), (low_q, high_q) = wilson(hits, n), wilson(other, m)
    low, high = sqrt((p - low_p) ** 2 + (high_q - q) ** 2), sqrt((high_p - p) ** 2 + (q - low_q) ** 2)
    return p - q, (p - q - low, p - q + high)


def mcnemar(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Two-sided p-value of McNemar's exact test (1947) that a and b, bool (N,), are true equally often.

    Of the examples on which the two differ, half are a's under the hypothesis: a binomial test. 1 where they
    nowhere differ. Raises ValueError for arrays of different length, which are not the same examples.
    """
    if a.shape != b.shape:
        raise ValueError(f"McNemar's test pairs the same examples; got {a.shape} and {b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


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


Interval = tuple[float, float]


def paired_difference(lost: int, won: int, n: int) -> tuple[float, Interval]:
    """(lost − won) / n for two verdicts on the same n examples, with its 95 % interval (Bonett & Price 2012).

    Args:
        lost: examples right by the first and wrong by the second; `won` the reverse.
    """
    first, second = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = first - second
    half = Z95 * sqrt((first + second - centre * centre) / (n + 2))
    return (lost - won) / n if n else 0.0, (max(-1.0, centre - half), min(1.0, centre + half))


def percent(share: float) -> str:
    """`3.2 %`."""
    return f"{100 * share:.1f} %"

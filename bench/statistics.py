"""Intervals for proportions."""

from math import sqrt

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

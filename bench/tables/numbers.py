"""The numbers of a table: a share of one training seed, or its mean over several; and the gain over the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Any

from bench.statistics import Share, mcnemar
from bench.tables.table_lines import Line

NOISE = 0.05  # a gain whose p-value is not below is not told apart from none


@dataclass(frozen=True)
class Gain:
    """How much a line exceeds the baseline's on the same examples.

    Attributes:
        points: difference, in points of a per cent.
        p: McNemar's exact two-sided p-value; None where verdicts per example are not known.
    """

    points: float
    p: float | None

    @property
    def noise(self) -> bool:
        """Whether the difference lies inside the noise."""
        return self.p is not None and self.p >= NOISE


@dataclass(frozen=True)
class Number:
    """One number of a table.

    Attributes:
        percent: the share, or the mean of the seeds' shares.
        low, high: of one seed the 95 % Wilson interval, of several their smallest and largest share.
        seeds: how many.
        n: examples, of each seed.
    """

    percent: float
    low: float
    high: float
    seeds: int
    n: int
    gain: Gain | None


def over_seeds(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of one model under one attack together, one per training seed; the order is that of first ones."""
    keys: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        keys.setdefault((line.dataset, line.model, line.note, line.kind, line.attack, line.failure), []).append(line)
    models = list(dict.fromkeys(key[:3] for key in keys))
    return [group for model in models for key, group in keys.items() if key[:3] == model]


def number(group: Sequence[Line], eps: Fraction | None, lines: Sequence[Line], baseline: str) -> Number | None:
    """The number of lines that differ in their seed alone, at a radius (None: clean); None where there is none.

    Args:
        lines: the whole table, in which the baseline's lines are looked up.
    """
    shares = [share for line in group if (share := _share(line, eps)) is not None]
    if not shares:
        return None
    percents = [share.percent for share in shares]
    low, high = shares[0].interval if len(shares) == 1 else (min(percents), max(percents))
    gains = [found for line in group if (found := gain(line, eps, lines, baseline)) is not None]
    # Over several seeds a gain is one only if the baseline has them all.
    joint = _joint(gains) if gains and len(gains) == len(shares) else None
    return Number(fmean(percents), low, high, len(shares), shares[0].n, joint)


def gain(line: Line, eps: Fraction | None, lines: Sequence[Line], baseline: str) -> Gain | None:
    """The gain over the baseline's line of the same data set and attack, and of the same training seed.

    A baseline that came with its weights has no seed, and is compared with every one.
    """
    share = _share(line, eps)
    rivals = [x for x in lines if rival(x, line) and x.model == baseline and _share(x, eps) is not None]
    base = next((x for x in rivals if x.train_seed in (line.train_seed, None)), None)
    if share is None or base is None or line.model == baseline:
        return None
    ours, theirs = (x.clean_right if eps is None else x.right.get(eps) for x in (line, base))
    other = _share(base, eps)
    assert other is not None
    p = None if ours is None or theirs is None else mcnemar(ours, theirs)
    return Gain(share.percent - other.percent, p)


def rival(a: Line, b: Line) -> bool:
    """Whether two lines' numbers may be compared: the same data set, and the same attack or certificate."""
    return (a.dataset, a.kind, a.attack) == (b.dataset, b.kind, b.attack)


def _joint(gains: Sequence[Gain]) -> Gain:
    """The mean gain; its p-value is the largest of the seeds', and 1 where seeds disagree on the direction.

    Seeds share their examples, so counts must not be pooled: a gain counts only where every seed has it.
    """
    values = [found.p for found in gains if found.p is not None]
    agree = len({found.points > 0 for found in gains}) == 1
    p = None if len(values) < len(gains) else max(values) if agree else 1.0
    return Gain(fmean(found.points for found in gains), p)


def _share(line: Line, eps: Fraction | None) -> Share | None:
    return line.clean if eps is None else line.robust.get(eps)

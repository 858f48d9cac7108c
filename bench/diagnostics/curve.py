"""Accuracy over the radius: it must fall, and end at nothing."""

from dataclasses import replace
from fractions import Fraction

import torch

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.settings.radii import show_eps
from bench.statistics import percent, wilson
from bench.thresholds import FLAT_DROP, FLAT_LEFT, FLAT_RATIO, FLATNESS, LARGE_EPS_ONE, Thresholds

LARGE_EXAMPLES = 100  # at ε = 1 a step of 1/255 takes hundreds of steps


def flatness(context: Context) -> DiagnosticResult:
    """Whether a larger radius breaks more, and what a smaller one broke."""
    name, n = "flatness", context.n
    if len(context.radii) < 2:
        return not_applicable(name, "It needs at least two radii.")
    broken = [context.attacked(eps).broken for eps in context.radii]
    lost = torch.zeros_like(broken[0])
    for index, smaller in enumerate(broken):
        for larger in broken[index + 1 :]:
            lost |= smaller & ~larger
    first, last = int(broken[0].sum()), int(broken[-1].sum())
    gained = max(last - first, 0)
    left = int(context.right.sum()) - last
    counts = zip(context.radii, broken, strict=True)
    evidence: Evidence = {f"broken at {show_eps(eps)}": int(fallen.sum()) for eps, fallen in counts}
    evidence |= {"F": gained / first if first else 0.0, "broken only at a smaller radius": int(lost.sum())}
    steep, high = wilson(first, n)[0] > FLAT_DROP, wilson(left, n)[0] > FLAT_LEFT
    if steep and high and wilson(gained, n)[1] / wilson(first, n)[0] < FLAT_RATIO:
        sentence = (
            f"The smallest radius breaks {percent(first / n)}, the largest only {percent(gained / n)} more, and "
            f"{percent(left / n)} are left: the curve is flat where it should fall."
        )
        interval = (wilson(gained, n)[0] / wilson(first, n)[1], wilson(gained, n)[1] / wilson(first, n)[0])
        return DiagnosticResult(
            name, "FAIL", sentence, gained / first, FLAT_RATIO, n, interval, "weak attack", evidence
        )
    sentence = f"{int(lost.sum())} of {n} images fall at a radius and stand at a larger one."
    return of_share(name, int(lost.sum()), n, FLATNESS, sentence, "weak attack", evidence)


def large_eps(context: Context) -> DiagnosticResult:
    """At ε = 1/2 every image can be made grey, at ε = 1 anything: accuracy must be chance, then nothing."""
    rows = torch.arange(min(context.n, LARGE_EXAMPLES), device=context.x.device)
    chance = 1 / context.classes
    left = {eps: _left(context, eps, rows) for eps in (Fraction(1, 2), Fraction(1))}
    half, one = (
        of_share("large-eps", hits, len(rows), lines, "", "weak attack")
        for hits, lines in zip(left.values(), (Thresholds(fail=chance), LARGE_EPS_ONE), strict=True)
    )
    sentence = (
        f"The attack leaves {percent(left[Fraction(1, 2)] / len(rows))} at ε = 1/2 (chance: {percent(chance)}) and "
        f"{percent(left[Fraction(1)] / len(rows))} at ε = 1."
    )
    evidence = {"left at 1/2": left[Fraction(1, 2)], "left at 1": left[Fraction(1)]}
    worse = half if half.fired and not one.fired else one
    return replace(worse, sentence=sentence, evidence=evidence)


def _left(context: Context, eps: Fraction, rows: torch.Tensor) -> int:
    return int((context.right[rows] & ~context.run_protocol(context.model, eps, rows).broken).sum())

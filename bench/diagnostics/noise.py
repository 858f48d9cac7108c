"""Random noise in the ball: what it breaks, a search must break too."""

from torch import Tensor

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.settings.radii import show_eps
from bench.thresholds import NOISE

DRAWS, EXAMPLES = 1000, 100
FIRST = 1000  # restarts below are PGD's


def noise(context: Context) -> DiagnosticResult:
    """Uniform and corner draws, alternately, on images that the protocol did not break."""
    name = "noise"
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    rows = context.standing(context.largest)[:EXAMPLES]
    if not len(rows):
        return not_applicable(name, "The attack breaks every image.")
    hits = int(broken_by_noise(context).sum())
    sentence = (
        f"{hits} of {len(rows)} images that stand at ε = {show_eps(context.largest)} fall to the best of {DRAWS:,} "
        "random draws."
    )
    return of_share(name, hits, len(rows), NOISE, sentence, "weak attack", {"draws": DRAWS})


def broken_by_noise(context: Context) -> Tensor:
    """Of the first images that the protocol did not break at the largest radius, bool (N,)."""
    return context.once("noise", lambda: _draw(context, float(context.largest)))


def _draw(context: Context, eps: float) -> Tensor:
    broken = context.right & False
    rows = context.standing(context.largest)[:EXAMPLES]
    for number in range(DRAWS):
        left = rows[~broken[rows]]
        if not len(left):
            break
        unit = context.draws.of(left.tolist()).unit(context.x.shape[1:], FIRST + number).to(context.x)
        delta = eps * (unit.sign() if number % 2 else unit)
        broken[left] = context.predict((context.x[left] + delta).clamp(0, 1)) != context.y[left]
    return broken

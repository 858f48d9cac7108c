"""Random noise in the ball: what it breaks, a search must break too."""

import torch

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.settings.radii import show_eps
from bench.thresholds import NOISE

DRAWS, EXAMPLES = 1000, 100
FIRST = 1000  # restarts below are PGD's


def noise(context: Context) -> DiagnosticResult:
    """Uniform and corner draws, alternately, on images that the protocol did not break."""
    name, eps = "noise", float(context.largest)
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    rows = context.standing(context.largest)[:EXAMPLES]
    if not len(rows):
        return not_applicable(name, "The attack breaks every image.")
    broken = torch.zeros(len(rows), dtype=torch.bool, device=context.x.device)
    for number in range(DRAWS):
        left = (~broken).nonzero().flatten()
        if not len(left):
            break
        unit = context.draws.of(rows[left].tolist()).unit(context.x.shape[1:], FIRST + number).to(context.x)
        delta = eps * (unit.sign() if number % 2 else unit)
        broken[left] = context.predict((context.x[rows[left]] + delta).clamp(0, 1)) != context.y[rows[left]]
    hits = int(broken.sum())
    sentence = (
        f"{hits} of {len(rows)} images that stand at ε = {show_eps(context.largest)} fall to the best of {DRAWS:,} "
        "random draws."
    )
    return of_share(name, hits, len(rows), NOISE, sentence, "weak attack", {"draws": DRAWS})

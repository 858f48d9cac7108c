"""The gradient at the scale of an attack: does it say what steps of a grey level do?"""

import torch
from torch import Tensor

from bench.attacks.core.losses import margin
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.diagnostics.state import seeded
from bench.errors import first_line
from bench.evaluation.derivatives import jittered, margin_gradient
from bench.thresholds import SMOOTHNESS, SMOOTHNESS_RATIOS

EXAMPLES, DIRECTIONS = 64, 8


def smoothness(context: Context) -> DiagnosticResult:
    """Changes of the margin by random steps of 1, 4 and 16 grey levels a pixel, over what the gradient foretells.

    Far less is a ripple: a gradient of waves that are shorter than any step. Far more is a staircase with soft edges:
    a steep saturating function, flat where the images are.
    """
    name = "smoothness"
    rows = context.right.nonzero().flatten()[:EXAMPLES]
    if not len(rows):
        return not_applicable(name, "The model is right on no image.")
    x, y = jittered(context.x[rows]), context.y[rows]
    try:
        slope = margin_gradient(context.model, x, y)
    except RuntimeError as error:
        return not_applicable(name, f"It has no gradient: {first_line(error)}.")
    ripple, steep = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y, dtype=torch.bool)
    evidence: Evidence = {}
    for levels, (low, high) in SMOOTHNESS_RATIOS.items():
        ratio = _ratio(context, x, y, slope, levels / 255)
        evidence[f"median ratio at {levels}/255"] = float(ratio.median())
        ripple |= ratio < low
        steep |= ratio > high
    hits = int((ripple | steep).sum())
    evidence |= {"far less than foretold": int(ripple.sum()), "far more than foretold": int(steep.sum())}
    sentence = (
        f"Steps of 1 to 16 grey levels change the margin of {hits} of {len(rows)} images far less "
        f"({int(ripple.sum())}) or far more ({int(steep.sum())}) than the gradient foretells."
    )
    return of_share(name, hits, len(rows), SMOOTHNESS, sentence, "masking", evidence)


def _ratio(context: Context, x: Tensor, y: Tensor, slope: Tensor, step: float) -> Tensor:
    """Root mean square over random corners of what happens, by that of what the gradient foretells, (N,)."""
    generator = torch.Generator().manual_seed(0)
    here, happened, foretold = margin(seeded(context.model, x), y), torch.zeros_like(x[:, 0, 0, 0]), x.new_zeros(len(x))
    for _ in range(DIRECTIONS):
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        there = (x + step * signs).clamp(0, 1)
        happened = happened + (margin(seeded(context.model, there), y) - here).square()
        foretold = foretold + (slope * (there - x)).flatten(1).sum(1).square()
    # Where nothing is foretold and nothing happens, nothing is wrong.
    tiny = torch.finfo(x.dtype).tiny
    return ((happened + tiny) / (foretold + tiny)).sqrt().nan_to_num(nan=torch.inf)

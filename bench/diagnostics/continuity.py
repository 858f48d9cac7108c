"""Jumps: steps far too small to matter must not matter, or no gradient describes the model."""

import torch

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.diagnostics.state import seeded
from bench.evaluation.derivatives import jittered
from bench.thresholds import CONTINUITY, JUMP

EXAMPLES, STEP = 64, 2e-6  # about 30 units in the last place of a pixel in float32


def continuity(context: Context) -> DiagnosticResult:
    """The logits of images and of the same moved by 2e-6 in every pixel, several times, beside the grid and on it.

    Noise that is seeded by the image, a table of images, a hash: the same image always gets the same answer, and its
    closest neighbour another. A kink, a step of an iterative solver or float16 inside move logits by far less.
    """
    name = "continuity"
    x = context.x[:EXAMPLES]
    if not len(x):
        return not_applicable(name, "There is no image to judge.")
    generator = torch.Generator().manual_seed(0)
    jumps, largest = torch.zeros(len(x), dtype=torch.bool, device=x.device), 0.0
    for at in (jittered(x), jittered(x, 1), x):
        here = seeded(context.model, at)
        spread = here.std(1).clamp_min(1e-12)
        for _ in range(3):
            signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
            change = (seeded(context.model, (at + STEP * signs).clamp(0, 1)) - here).abs().amax(1) / spread
            jumps |= ~(change <= JUMP)
            largest = max(largest, float(change.nan_to_num(nan=torch.inf).max()))
    hits = int(jumps.sum())
    sentence = (
        f"A step of {STEP:g} moves the logits of {hits} of {len(x)} images by more than {JUMP:g} of their spread"
        + (": they jump, and no gradient says where to." if hits else ".")
    )
    return of_share(name, hits, len(x), CONTINUITY, sentence, "masking", {"largest jump": largest})

"""The gradient in another precision: signs that change with it are rounding; steps that vanish were rounded away."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.attacks.core.losses import margin
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.evaluation.derivatives import jittered, margin_gradient
from bench.statistics import Z95, percent
from bench.thresholds import PRECISION_SIGNS, PRECISION_STEPS, Verdict

EXAMPLES = 50
# Steps in every pixel. A fine one is far above the resolution of the precision it is taken in, and below float16's.
FINE = {torch.float64: 1e-6, torch.float32: 2e-5}
COARSE = (1e-3, 4e-3, 1e-2, 3e-2)
OFF = 0.5  # relative, by which a change is not what the gradient foretells
COUNTED = 1e-3  # entries of a gradient below this share of its largest are rounding in a deep network


def precision(context: Context) -> DiagnosticResult:
    """Signs of the float32 gradient against the same weights in float64; and whether fine steps are rounded away."""
    name = "precision"
    rows = context.right.nonzero().flatten()[:EXAMPLES]
    if len(rows) < 2:
        return not_applicable(name, "The model is right on fewer than two images.")
    x, y = jittered(context.x[rows]), context.y[rows]
    try:
        double = copy.deepcopy(context.model).double()
        used = margin_gradient(context.model, x, y)
        true = margin_gradient(double, x.double(), y)
    except RuntimeError:  # written for float32 alone, or without a gradient
        return not_applicable(name, "The model's gradient cannot be taken in float64.")
    # Autocast leaves float64 alone, and a cast that the author wrote does not: each is seen in one of the two.
    found = (_signs(used, true), _steps(double, x.double(), y, true), _steps(context.model, x, y, used))
    parts = [part for part in found if part is not None]
    if not parts:
        return not_applicable(name, "The gradient is zero: see gradient.")
    order: dict[Verdict, int] = {"n/a": 0, "OK": 1, "WARN": 2, "FAIL": 3}
    worst = max(parts, key=lambda part: order[part.verdict])
    shown = [part for part in parts if part.fired] or parts
    evidence = {key: value for part in parts for key, value in part.evidence.items()}
    return replace(worst, sentence=" ".join(part.sentence for part in shown), evidence=evidence)


def _signs(used: Tensor, true: Tensor) -> DiagnosticResult | None:
    size = true.abs()
    counted = size > COUNTED * size.flatten(1).amax(1).view(-1, 1, 1, 1)
    some = counted.flatten(1).any(1)
    if int(some.sum()) < 2:
        return None
    same = ((used.sign() == true.sign()) & counted).flatten(1).sum(1)[some].double()
    same /= counted.flatten(1).sum(1)[some]
    mean, half = float(same.mean()), Z95 * float(same.std()) / len(same) ** 0.5
    lines, high = PRECISION_SIGNS, min(1.0, mean + half)
    assert lines.warn is not None and lines.fail is not None
    verdict: Verdict = "FAIL" if high < lines.fail else "WARN" if high < lines.warn else "OK"
    sentence = f"{percent(mean)} of the gradient's signs are those of float64."
    interval, line = (max(0.0, mean - half), high), lines.fail if verdict == "FAIL" else lines.warn
    evidence: Evidence = {"agreement of signs with float64": mean}
    return DiagnosticResult("precision", verdict, sentence, mean, line, len(same), interval, "masking", evidence)


def _steps(model: nn.Module, x: Tensor, y: Tensor, slope: Tensor) -> DiagnosticResult | None:
    """Images of which a fine step along the gradient's signs does not what it foretells, where most coarser ones do."""
    size = slope.abs().flatten(1).sum(1)
    some = size > 0
    if not bool(some.any()):
        return None
    fine, x, y, slope = FINE[x.dtype], x[some], y[some], slope[some]

    @torch.no_grad()
    def off(step: float) -> Tensor:
        ahead, behind = ((x + way * step * slope.sign()).clamp(0, 1) for way in (1, -1))
        foretold = (slope * (ahead - behind)).flatten(1).sum(1)
        return ((margin(model(ahead), y) - margin(model(behind), y)) - foretold).abs() / foretold > OFF

    right_when_coarse = torch.stack([~off(step) for step in COARSE]).sum(0) >= len(COARSE) - 1
    hits = int((off(fine) & right_when_coarse).sum())
    sentence = f"A step of {fine:g} does what the gradient foretells on {len(x) - hits} of {len(x)} images"
    sentence += "; on others only a coarser one does: the model rounds, as float16 inside it would." if hits else "."
    evidence = {f"rounded away in {str(x.dtype).removeprefix('torch.')}": hits}
    return of_share("precision", hits, len(x), PRECISION_STEPS, sentence, "masking", evidence)

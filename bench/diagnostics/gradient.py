"""The gradient the attack follows: is it there, is it the derivative, is it the converged one?"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import frozen
from bench.attacks.core.losses import margin
from bench.attacks.core.sign_ascent import input_gradient
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.errors import BenchError
from bench.evaluation.derivatives import derivatives, jittered, margin_gradient
from bench.statistics import Z95, percent, wilson
from bench.thresholds import GRADIENT_AGREEMENT, GRADIENT_DEAD, GRADIENT_ERROR, GRADIENT_TAIL, MIN_POINTS, Verdict

STEPS = 10  # of the path
EXAMPLES = 100  # for float64
# exp(−104) is 0 in float32: with such a margin every term of the cross-entropy's gradient underflows.
SATURATED = 104.0


def gradient(context: Context) -> DiagnosticResult:
    """Zero and NaN gradients along PGD's path; beside the path, the derivative of the margin against central
    differences in float64, and the signs of its gradient against those with a converged adjoint."""
    dead, path = _dead(context)
    rows = context.right.nonzero().flatten()[:EXAMPLES]
    parts = [dead]
    if len(rows):
        x, y = jittered(torch.cat([context.x[rows], path[rows]])), context.y[rows].repeat(2)
        parts += [part for part in (_differences(context, x, y), _agreement(context, x, y)) if part is not None]
    evidence = {key: value for part in parts for key, value in part.evidence.items()}
    if not context.converged():
        evidence["agreement of signs"] = "n/a: the model has no tolerance option"
    order: dict[Verdict, int] = {"n/a": 0, "OK": 1, "WARN": 2, "FAIL": 3}
    worst = max(parts, key=lambda part: order[part.verdict])
    sentence = " ".join(part.sentence for part in (parts if not worst.fired else [p for p in parts if p.fired]))
    return replace(worst, sentence=sentence, evidence=evidence)


def _dead(context: Context) -> tuple[DiagnosticResult, Tensor]:
    """Examples that ever meet a gradient that is zero or NaN on PGD's path, and the path's last images."""
    eps = float(context.largest)
    unit = context.draws.unit(context.x.shape[1:]).to(context.x)
    parts, dead, saturated = [], 0, 0
    with frozen(context.model):
        for rows in torch.arange(context.n, device=context.x.device).split(context.batch):
            x, y, right = context.x[rows], context.y[rows], context.right[rows]
            at, bad, flat = (x + eps * unit[rows]).clamp(0, 1), torch.zeros_like(right), torch.zeros_like(right)
            for _ in range(STEPS):
                slope = _slope(context.model, at, y)
                here = (slope == 0).flatten(1).all(1) | ~slope.isfinite().flatten(1).all(1)
                if bool(here.any()):
                    flat |= here & (margin(context.logits_of_pixels(at), y).abs() > SATURATED)
                bad |= here
                at = at + 2.5 * eps / STEPS * slope.nan_to_num(0).sign()
                at = (x + (at - x).clamp(-eps, eps)).clamp(0, 1)
            parts.append(at)
            dead += int((bad & right).sum())
            saturated += int((flat & right).sum())
    n = int(context.right.sum())
    sentence = f"{dead} of {n} images meet a gradient that is zero or NaN on the way."
    if saturated:
        sentence += (
            f" On {saturated} of them the logits' margin is above {SATURATED:.0f}: the cross-entropy saturates in "
            "float32, its gradient is exactly zero. Attack a loss of logit differences."
        )
    evidence = {"dead gradients": dead, "saturated": saturated}
    return of_share("gradient", dead, n, GRADIENT_DEAD, sentence, "masking", evidence), torch.cat(parts)


def _slope(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy's gradient; zero where the logits do not depend on the images, as autograd sees it."""
    try:
        return input_gradient(model, x, y)
    except RuntimeError as error:
        if "does not require grad" in str(error) or "not have been used" in str(error):
            return torch.zeros_like(x)
        raise


def _differences(context: Context, x: Tensor, y: Tensor) -> DiagnosticResult | None:
    """Along one random direction an image; None where the model cannot be evaluated in float64."""
    try:
        found = derivatives(context.exact(), x.double(), y)
    except (BenchError, ValueError, RuntimeError):
        return None
    n, evidence = len(found.errors), {"points without a derivative": found.excluded}
    if n < MIN_POINTS:
        why = f"Only {n} of {len(x)} points have a derivative that central differences agree on."
        return replace(not_applicable("gradient", why, n), evidence=evidence)
    tail = _tail(found.errors)
    return replace(tail, evidence={**tail.evidence, **evidence})


def _tail(errors: Tensor) -> DiagnosticResult:
    """Judged by the 95th percentile: it lies above a line where more than 5 % of the errors do."""
    n, lines = len(errors), GRADIENT_ERROR
    assert lines.warn is not None and lines.fail is not None

    def crossed(line: float) -> bool:
        return wilson(int((errors > line).sum()), n)[0] > GRADIENT_TAIL

    verdict: Verdict = "FAIL" if crossed(lines.fail) else "WARN" if crossed(lines.warn) else "OK"
    ranks = wilson(round(GRADIENT_TAIL * n), n)
    low, high = (float(errors.quantile(1 - rank)) for rank in reversed(ranks))
    tail = float(errors.quantile(1 - GRADIENT_TAIL))
    sentence = (
        f"On 95 % of {n} points its directional derivative is within {tail:.1g} (relative) of central differences"
        + (" in float64." if verdict == "OK" else " in float64: it is not the derivative of what is evaluated.")
    )
    evidence: Evidence = {
        "median error of the derivative": float(errors.median()),
        "95th percentile of the derivative's error": tail,
    }
    line = lines.fail if verdict == "FAIL" else lines.warn
    return DiagnosticResult("gradient", verdict, sentence, tail, line, n, (low, high), "masking", evidence)


def _agreement(context: Context, x: Tensor, y: Tensor) -> DiagnosticResult | None:
    """Signs of the margin's gradient, as it is evaluated, against float64 with a converged adjoint."""
    reference = _converged_adjoint(context)
    if reference is None:
        return None
    try:
        true = margin_gradient(reference, x.double(), y)
    except RuntimeError:
        return None
    pairs = zip(x.split(context.batch), y.split(context.batch), strict=True)
    used = torch.cat([margin_gradient(context.model, images, labels) for images, labels in pairs])
    counted = true != 0
    same = ((used.sign() == true.sign()) & counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)
    same = same[counted.flatten(1).any(1)].double()
    n = len(same)
    if n < 2:
        return None
    mean, half = float(same.mean()), Z95 * float(same.std()) / n**0.5
    high = min(1.0, mean + half)
    lines = GRADIENT_AGREEMENT
    assert lines.warn is not None and lines.fail is not None
    verdict: Verdict = "FAIL" if high < lines.fail else "WARN" if high < lines.warn else "OK"
    sentence = f"{percent(mean)} of its signs are those of the converged gradient."
    interval = (max(0.0, mean - half), high)
    line = lines.warn if verdict == "WARN" else lines.fail
    return DiagnosticResult(
        "gradient", verdict, sentence, mean, line, n, interval, "masking", {"agreement of signs": mean}
    )


def _converged_adjoint(context: Context) -> nn.Module | None:
    """None for a model without a choice of gradients: there is nothing but its own to compare with."""
    if not context.converged():
        return None  # of a model without a tolerance it would be the model itself
    if "gradient" not in context.options:
        return None
    for method in ("exact", "implicit"):
        try:
            return context.exact(gradient=method, gradient_tol=1e-10)
        except (BenchError, ValueError):
            continue
    return None

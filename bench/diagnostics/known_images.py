"""A model that knows the test images: it must fare on them as on held-out ones, which it does not know."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bench.attacks.core.losses import margin
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable
from bench.diagnostics.state import seeded
from bench.evaluation.derivatives import margin_gradient
from bench.statistics import newcombe, percent
from bench.thresholds import KNOWN_IMAGES, verdict_of

NOISE = 0.5 / 255  # half a grey level
SURE = 0.95  # quantile of the held-out images' margins, above which the model is unusually sure
CHANGED = 0.1  # of a logit vector's length, moved by half a grey level
MINIMUM, STEPS = 20, 10


def known_images(context: Context) -> DiagnosticResult:
    """Shares, of test images less of held-out ones: right; lost to half a grey level of noise, to a shift by one pixel
    or, in colour, to a mirror; answered otherwise for that noise; answered unusually surely; standing under attack.

    Judged in one direction: a table of the test images makes a model right on these alone, surer of them, easily
    turned from its answer, or hard to attack near them. What differs with the images' difficulty takes more to count.
    """
    name = "known-images"
    if context.held_out is None or min(context.n, len(context.held_out[0])) < MINIMUM:
        return not_applicable(name, f"It needs at least {MINIMUM} test images and as many held-out ones.")
    own, sure = _traits(context, context.x, context.y)
    others, usual = _traits(context, *context.held_out)
    line = usual.quantile(SURE)
    own["are answered unusually surely"], others["are answered unusually surely"] = sure > line, usual > line
    evidence: Evidence = {}
    results = []
    for label, flags in own.items():
        there = others[label]
        value, interval = newcombe(int(flags.sum()), len(flags), int(there.sum()), len(there))
        here, elsewhere = float(flags.double().mean()), float(there.double().mean())
        evidence |= {f"{label}, test": here, f"{label}, held-out": elsewhere}
        verdict, crossed = verdict_of(interval, KNOWN_IMAGES[label])
        sentence = f"{percent(here)} of the test images {label}, and {percent(elsewhere)} of held-out images."
        results.append(
            DiagnosticResult(name, verdict, sentence, value, crossed, context.n, interval, "contaminated", evidence)
        )
    return max(results, key=lambda result: (result.verdict == "FAIL", result.fired, result.interval or (0, 0)))


def _traits(context: Context, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What is asked of each image, bool (N,) by a name that a sentence goes on with; and how sure its answer is."""

    def ask(images: Tensor) -> Tensor:
        return torch.cat([seeded(context.model, part) for part in images.split(context.batch)])

    logits = ask(x)
    right = logits.argmax(1) == y
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x) * 2 - 1
    near = ask((x + NOISE * noise).clamp(0, 1))
    size = logits.norm(dim=1)
    flags = {
        "are right": right,
        "are lost to half a grey level of noise": right & (near.argmax(1) != y),
        "are answered otherwise for half a grey level of noise": (near - logits).norm(dim=1) > CHANGED * size,
        "are lost to a shift by one pixel": right & _shifted_wrong(ask, x, y),
    }
    if x.shape[1] == 3:  # digits and letters are not themselves in a mirror
        flags["are lost to a mirror"] = right & (ask(x.flip(3)).argmax(1) != y)
    flags["stand under attack"] = right & (ask(_attacked(context, x, y)).argmax(1) == y)
    return flags, margin(logits, logits.argmax(1)).neg() / size.clamp_min(1e-12)


def _attacked(context: Context, x: Tensor, y: Tensor) -> Tensor:
    """Ten steps up the margin, at a radius that breaks what is not defended; x where there is no gradient to follow."""
    eps, at = float(max(context.largest, context.canary or 0)), x
    for _ in range(STEPS):
        try:
            parts = zip(at.split(context.batch), y.split(context.batch), strict=True)
            slope = torch.cat([margin_gradient(context.model, part, labels) for part, labels in parts])
        except RuntimeError:
            return x
        at = at + eps / 4 * slope.nan_to_num(0).sign()
        at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
    return at


def _shifted_wrong(ask: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Wrong for most of the four shifts."""
    around = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    height, width = x.shape[2:]
    places = ((0, 1), (2, 1), (1, 0), (1, 2))
    wrong = [ask(around[:, :, i : i + height, j : j + width]).argmax(1) != y for i, j in places]
    return torch.stack(wrong).double().mean(0) > 0.5

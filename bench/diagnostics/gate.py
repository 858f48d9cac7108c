"""A gate that looks at how it is asked: at the gradient's mode, at `requires_grad`, at the image's batch mates."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.diagnostics.state import apart, seeded
from bench.thresholds import BATCH_MOVED, GATE, LOGITS_MOVED

EXAMPLES, REPEATS = 32, 10

Ask = Callable[[Tensor], Tensor]


def gate(context: Context) -> DiagnosticResult:
    """The same images judged as the verdict is (without gradients, together) and as an attack or a user asks.

    A decoy answers the attack's forward with other logits; an early exit that the whole batch takes, or a statistic of
    the batch, makes an image's logits those of its company.
    """
    name, x = "gate", context.x[:EXAMPLES]
    if len(x) < 2:
        return not_applicable(name, "It needs at least two images.")
    base = context.logits_of_pixels(x.clone())
    scale = float(base.abs().amax().clamp_min(1e-12))
    for _ in range(REPEATS):
        if float(apart(context.logits_of_pixels(x.clone()), base).max()) > LOGITS_MOVED * scale:
            return not_applicable(name, "Its logits differ between equal forwards: see determinism and state.")
    moved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    evidence: Evidence = {}
    seen: list[str] = []
    for label, (ask, tolerance) in _ways(context, x).items():
        change = apart(ask(x.clone()), base)
        here = change > tolerance * scale
        evidence[label] = float(change.max())
        if bool(here.any()):
            seen.append(label)
        moved |= here
    hits = int(moved.sum())
    sentence = (
        f"The logits of {hits} of {len(x)} images differ {', '.join(seen)}."
        if hits
        else f"Gradients and batch mates move no logit of {len(x)} images."
    )
    return of_share(name, hits, len(x), GATE, sentence, "unsteady", evidence)


def _ways(context: Context, x: Tensor) -> dict[str, tuple[Ask, float]]:
    """Ways to ask, and how far rounding may move a logit, relative to the largest."""
    calm = torch.zeros_like(x)
    loud = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return {
        "with gradients enabled": (lambda at: _forward(context, at), LOGITS_MOVED),
        "when the image requires a gradient": (lambda at: _forward(context, at.requires_grad_()), LOGITS_MOVED),
        "when it is computed from one that does": (lambda at: _forward(context, at.requires_grad_() * 1), LOGITS_MOVED),
        "alone": (lambda at: torch.cat([seeded(context.model, part) for part in at.split(1)]), BATCH_MOVED),
        "in reverse order": (lambda at: seeded(context.model, at.flip(0)).flip(0), BATCH_MOVED),
        "beside black images": (lambda at: seeded(context.model, torch.cat([at, calm]))[: len(at)], BATCH_MOVED),
        "beside noise": (lambda at: seeded(context.model, torch.cat([loud, at]))[len(at) :], BATCH_MOVED),
        "beside attacked images": (lambda at: _beside_attacked(context, at), BATCH_MOVED),
    }


def _forward(context: Context, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return cast(Tensor, context.model(x.clone())).detach()


def _beside_attacked(context: Context, x: Tensor) -> Tensor:
    noisy = (x + float(context.largest) * torch.ones_like(x)).clamp(0, 1)
    return seeded(context.model, torch.cat([x, noisy]))[: len(x)]

"""State carried between calls: a model must say the same of an image whatever it was asked before."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import ContractError
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.errors import BenchError
from bench.evaluation.derivatives import margin_gradient
from bench.thresholds import LOGITS_MOVED, STATE

EXAMPLES = 32
CALLS = 128  # further calls on single images, in which a counter may come to its end


def state(context: Context) -> DiagnosticResult:
    """The same images before and after others: other images, noise, gradients, many single calls, a whole attack.

    The model is a fresh one, whose first answer counts, and beside it the one that was attacked. torch's own random
    state is put back before each look, so that fresh noise is left to `determinism`; what still moves depends on the
    calls before.
    """
    name, x = "state", context.x[:EXAMPLES]
    if not len(x):
        return not_applicable(name, "There is no image to judge.")
    model = _fresh(context)
    first, first_alone = seeded(model, x), seeded(model, x[:1])
    limit = LOGITS_MOVED * float(first.abs().amax().clamp_min(1e-12))
    change, calls = _after_attacks(context, x, first), 2
    for disturb in _disturbances(context, model, x):
        disturb()
        change = torch.maximum(change, apart(seeded(model, x), first))
        calls += 2
    for _ in range(CALLS):
        change[:1] = torch.maximum(change[:1], apart(seeded(model, x[:1]), first_alone))
    change = torch.maximum(change, apart(seeded(model, x), first))
    hits = int((change > limit).sum())
    sentence = f"The logits of {hits} of {len(x)} images change once the model has seen others or been called again."
    evidence = {"largest change of a logit": float(change.max()), "calls": calls + CALLS + 1}
    return of_share(name, hits, len(x), STATE, sentence, "unsteady", evidence)


def seeded(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of a copy of the images, without gradients, with torch's random state set to the same before."""
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), parametrize.cached():
        torch.manual_seed(0)
        return cast(Tensor, model(x.clone()))


def _fresh(context: Context) -> nn.Module:
    """One that was not asked yet; where it cannot be made again, the one there is."""
    try:
        return context.rebuild({})
    except (BenchError, ValueError):
        return context.model


def _after_attacks(context: Context, x: Tensor, first: Tensor) -> Tensor:
    """How far the model that the attacks have called for so long is from a fresh one, (N,); 0 where two fresh ones
    differ already, or none can be made."""
    try:
        context.attacked(context.largest)
    except (ContractError, RuntimeError):  # other diagnostics say why
        return torch.zeros_like(first[:, 0])
    same = bool((apart(seeded(_fresh(context), x), first) == 0).all())
    return apart(seeded(context.model, x), first) * same


def apart(after: Tensor, before: Tensor) -> Tensor:
    """The largest change of a logit, one per image; infinite where one is not finite."""
    return (after - before).nan_to_num(nan=torch.inf).abs().amax(1)


def _disturbances(context: Context, model: nn.Module, x: Tensor) -> list[Callable[[], object]]:
    """What may be asked in between."""
    y, other = context.y[: len(x)], context.x.flip(0)[: len(x)]
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return [
        lambda: None,
        lambda: seeded(model, other),
        lambda: seeded(model, noise),
        lambda: seeded(model, other[:1]),
        lambda: seeded(model, torch.zeros_like(x[:1])),
        lambda: _climb(model, x, y, float(context.largest)),
    ]


def _climb(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> None:
    """A few steps of an attack."""
    at = x
    for _ in range(5):
        try:
            slope = margin_gradient(model, at, y)
        except RuntimeError:  # a model without gradients may carry state all the same
            return
        at = (at + eps / 4 * slope.nan_to_num(0).sign()).clamp(0, 1)

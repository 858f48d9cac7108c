"""Adversarial training: the defences of Table 2, each a loss on adversarial images made at every step.

The inner search sees the model in eval mode, with the evaluation's solver and gradient: its running
statistics stay as they are, and an image's perturbation does not depend on its batch mates.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from bench.attacks.core.contract import frozen
from bench.registry import recipe
from bench.settings.lengths import Length
from bench.training.recipes.standard import TrainingStep

Steps = Annotated[int, Field(ge=0)]


@recipe("trades")
def trades(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: TrainingStep,
    *,
    eps: Length = 0.031,
    step: Length = 0.007,
    steps: Steps = 10,
    beta: Annotated[float, Field(ge=0)] = 6.0,
) -> Tensor:
    """TRADES (Zhang et al. 2019): cross-entropy on clean images + β KL(p(x) ‖ p(x′)).

    x′ maximises the KL divergence, summed over the batch, within the ball, from x + 0.001·N(0, 1);
    in the loss the divergence is averaged over the batch.

    Args:
        eps: L∞ radius, a fraction of the pixel range such as 8/255 or 0.03.
        step: step size of the inner search.
        steps: its gradient steps.
        beta: weight of the divergence.
    """
    start = x + 0.001 * torch.randn(x.shape, generator=moment.generator).to(x)
    with frozen(model), parametrize.cached():
        with torch.no_grad():
            clean = _log_softmax(model(x))
        adversarial = _search(model, x, start, eps, step, steps, lambda logits: _divergence(clean, logits, "sum"))
    logits = model(x).float()
    divergence = _divergence(_log_softmax(logits), model(adversarial), "batchmean")
    return functional.cross_entropy(logits, y) + beta * divergence


@recipe("pgd-at")
def pgd_at(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: TrainingStep,
    *,
    eps: Length = 0.031,
    step: Length = 0.00784,
    steps: Steps = 7,
) -> Tensor:
    """PGD adversarial training (Madry et al. 2018): cross-entropy on PGD's images, from a uniform random start.

    Args:
        eps: L∞ radius, a fraction of the pixel range such as 8/255 or 0.03.
        step: step size of the inner search.
        steps: its gradient steps.
    """
    noise = 2 * torch.rand(x.shape, generator=moment.generator) - 1
    start = (x + eps * noise.to(x)).clamp(0, 1)
    with frozen(model), parametrize.cached():
        adversarial = _search(
            model, x, start, eps, step, steps, lambda logits: functional.cross_entropy(logits.float(), y)
        )
    return functional.cross_entropy(model(adversarial).float(), y)


def _search(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    eps: float,
    step: float,
    steps: int,
    objective: Callable[[Tensor], Tensor],
) -> Tensor:
    """Signed gradient ascent of objective(logits) in the ball around x and in [0, 1], (N, C, H, W), detached."""
    adversarial = start
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        gradient = torch.autograd.grad(objective(model(adversarial)), adversarial)[0]
        ahead = adversarial.detach() + step * gradient.sign()
        adversarial = (x + (ahead - x).clamp(-eps, eps)).clamp(0, 1)
    return adversarial.clamp(0, 1)


def _log_softmax(logits: Tensor) -> Tensor:
    return functional.log_softmax(logits.float(), dim=1)


def _divergence(clean: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """KL(p ‖ q), p given by its logarithms (N, classes), q by its logits."""
    return functional.kl_div(_log_softmax(logits), clean, reduction=reduction, log_target=True)

"""I-FGSM and PGD: the paper's two attacks (Eq. 13, 14), to the bit what torchattacks' BIM and PGD compute."""

from fractions import Fraction
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from attacks.draws import Draws
from bench.registry import attack

Steps = Annotated[int, Field(ge=0)]
Length = Annotated[float, Field(gt=0, le=1)]


def eq14_steps(eps: Fraction) -> int:
    """Eq. 14: n = ⌊min(255ε + 4, 1.25·255ε)⌋ in exact fractions, at least 1. 2, 5, 7, 10 for 2, 4, 6, 8/255."""
    radius = 255 * eps
    return max(1, int(min(radius + 4, radius * Fraction(5, 4))))


@attack("ifgsm", label="I-FGSM")
def ifgsm(
    model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, *, steps: Steps = 10, alpha: Length = 1 / 255
) -> Tensor:
    """Iterative FGSM (Kurakin et al. 2017; = BIM), from the clean image; judges the last iterate.

    Eq. 13 prints a minus sign; an untargeted attack ascends the loss.

    Args:
        steps: gradient steps, ≥ 0.
        alpha: step size in units of the pixel range.
    """
    radius = eps.view(-1, 1, 1, 1)
    low, high = (x - radius).clamp_min(0), x + radius
    adversarial = x
    for _ in range(steps):
        ahead = adversarial + alpha * input_gradient(model, adversarial, y).sign()
        adversarial = torch.minimum(torch.maximum(ahead, low), high).clamp_max(1)
    return adversarial


@attack("pgd", label="PGD")
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    steps: Steps = 10,
    alpha: Length = 1 / 255,
    random_start: bool = True,
    restart: int = 0,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018) from a uniform random start; judges the last iterate.

    Args:
        steps: gradient steps, ≥ 0.
        alpha: step size in units of the pixel range.
        random_start: start at x + ε·u, u uniform on the cube, else at x.
        restart: which of the examples' draws u is.
    """
    radius = eps.view(-1, 1, 1, 1)
    adversarial = x
    if random_start:
        start = draws.unit(x.shape[1:], restart).to(x) * radius
        adversarial = (x + start).clamp(0, 1)
    for _ in range(steps):
        ahead = adversarial + alpha * input_gradient(model, adversarial, y).sign()
        adversarial = (x + torch.clamp(ahead - x, -radius, radius)).clamp(0, 1)
    return adversarial


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∂/∂x of the batch's mean cross-entropy, shaped like x. The mean, as torchattacks takes it: its
    factor 1/N cannot change a sign but can change how a product rounds."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(model(x), y), x)[0]

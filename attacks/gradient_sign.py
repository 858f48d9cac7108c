"""I-FGSM and PGD: the paper's two attacks (Eq. 13, 14), to the bit what torchattacks' BIM and PGD compute."""

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.core.draws import Draws
from bench.attacks.core.sign_ascent import SignAscent, ascend
from bench.registry import attack
from bench.settings.lengths import PositiveLength

Steps = Annotated[int, Field(ge=0)]


def eq14_steps(eps: Fraction) -> int:
    """Eq. 14: n = ⌊min(255ε + 4, 1.25·255ε)⌋ in exact fractions, at least 1. 2, 5, 7, 10 for 2, 4, 6, 8/255."""
    radius = 255 * eps
    return max(1, int(min(radius + 4, radius * Fraction(5, 4))))


def _ifgsm_ascent(*, steps: int, alpha: float) -> SignAscent:
    return SignAscent(_into_box, steps, alpha)


def _pgd_ascent(*, steps: int, alpha: float, random_start: bool, restart: int) -> SignAscent:
    return SignAscent(_onto_ball, steps, alpha, restart if random_start else None)


@attack("ifgsm", label="I-FGSM", ascent=_ifgsm_ascent)
def ifgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    steps: Steps = 10,
    alpha: PositiveLength = 1 / 255,
) -> Tensor:
    """Iterative FGSM (Kurakin et al. 2017; = BIM), from the clean image; judges the last iterate.

    Eq. 13 prints a minus sign; an untargeted attack ascends the loss.

    Args:
        steps: gradient steps, ≥ 0.
        alpha: step size, a fraction of the pixel range.
    """
    return _alone(_ifgsm_ascent(steps=steps, alpha=alpha), model, x, y, eps, draws)


def _idle(*, random_start: bool, **_: Any) -> dict[str, str]:
    return {} if random_start else {"restart": "random_start=true"}


@attack("pgd", label="PGD", ascent=_pgd_ascent, idle=_idle)
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    steps: Steps = 10,
    alpha: PositiveLength = 1 / 255,
    random_start: bool = True,
    restart: int = 0,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018) from a uniform random start; judges the last iterate.

    Args:
        steps: gradient steps, ≥ 0.
        alpha: step size, a fraction of the pixel range.
        random_start: start at x + ε·u, u uniform on the cube, else at x.
        restart: which of the examples' draws u is.
    """
    options: dict[str, Any] = {"random_start": random_start, "restart": restart}
    return _alone(_pgd_ascent(steps=steps, alpha=alpha, **options), model, x, y, eps, draws)


def _alone(ascent: SignAscent, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
    return ascend(model, x, y, [(ascent, eps)], draws, rows=len(x)).images[0]


def _into_box(x: Tensor, radius: Tensor) -> Callable[[Tensor], Tensor]:
    """As torchattacks' BIM rounds it."""
    low, high = (x - radius).clamp_min_(0), (x + radius).clamp_max_(1)
    return lambda ahead: ahead.clamp_(low, high)


def _onto_ball(x: Tensor, radius: Tensor) -> Callable[[Tensor], Tensor]:
    """As torchattacks' PGD rounds it."""
    low, high = _bound(-radius), _bound(radius)
    return lambda ahead: ahead.sub_(x).clamp_(low, high).add_(x).clamp_(0, 1)


def _bound(radius: Tensor) -> Any:
    """The radius as a number where all examples have the same: no tensor has to be read beside the images."""
    least, most = torch.stack(torch.aminmax(radius)).tolist()
    return least if least == most else radius

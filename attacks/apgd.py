"""Auto-PGD (Croce & Hein, ICML 2020), L∞: a radius per example, gradients from any guide, decided examples dropped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.core.active_set import keep_active
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import TARGETED, UNTARGETED, LossName, margin, rivals
from bench.attacks.core.surrogate_views import GuideName, guide_of
from bench.registry import attack

MOMENTUM = 0.75  # α: how much of the step is the new direction
INCREASES = 0.75  # ρ: a step size is halved where fewer steps than this share raised the loss

Steps = Annotated[int, Field(ge=1)]


@dataclass
class _Search:
    """The examples still searched, one entry each."""

    rows: Tensor  # their positions in the batch
    y: Tensor
    low: Tensor
    high: Tensor
    images: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    loss: Tensor
    step: Tensor
    increases: Tensor
    checked_loss: Tensor
    halved: Tensor


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    start: Tensor,
    loss: Callable[..., Tensor],
    *,
    steps: int,
    guide: nn.Module | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    """Per example the first iterate that the model misclassifies, else the one of the largest loss; like x.

    Args:
        model: who decides, images in [0, 1] to logits (N, classes).
        x, y, eps: images (N, C, H, W), labels (N,), radii (N,).
        start: first iterate, within the ball.
        loss: raised, (logits, y) -> (N,), or (logits, y, target) -> (N,) with `targets`.
        steps: gradient steps.
        guide: whose logits and gradients are followed; None: the model's own. Costs one forward of the model a step.
        targets: a class per example, (N,).
    """
    result, radius = start.clone(), eps.view(-1, 1, 1, 1)
    low, high = (x - radius).clamp_min(0), (x + radius).clamp_max(1)
    checkpoints = _checkpoints(steps)
    now = torch.maximum(torch.minimum(start, high), low)
    rows = torch.arange(len(x), device=x.device)
    value, gradient, right = _look(model, guide, now, y, rows, loss, targets)
    state = _Search(
        rows, y, low, high, now, now, gradient, now, value, gradient, value,
        2 * radius, torch.zeros_like(y), value, torch.ones_like(y, dtype=torch.bool),
    )  # fmt: skip
    result[state.rows] = state.images
    keep_active(state, right)
    last = 0
    for k in range(1, steps + 1):
        if not len(state.rows):
            break
        _advance(state, first=k == 1)
        value, gradient, right = _look(model, guide, state.images, state.y, state.rows, loss, targets)
        result[state.rows[~right]] = state.images[~right]
        keep_active(state, right)
        _note(state, value[right], gradient[right])
        if k in checkpoints:
            _check(state, k - last)
            last = k
    result[state.rows] = state.best
    return result


def _advance(state: _Search, first: bool) -> None:
    """A signed step, projected, and momentum."""
    ahead = _clamp(state, state.images + state.step * state.gradient.sign())
    if not first:
        ahead = state.images + MOMENTUM * (ahead - state.images) + (1 - MOMENTUM) * (state.images - state.previous)
        ahead = _clamp(state, ahead)
    state.previous, state.images = state.images, ahead


def _note(state: _Search, value: Tensor, gradient: Tensor) -> None:
    """Keep what the model said of the present iterates."""
    state.increases = state.increases + (value > state.loss)
    state.loss, state.gradient = value, gradient
    better = value > state.best_loss
    state.best = torch.where(_wide(better), state.images, state.best)
    state.best_gradient = torch.where(_wide(better), gradient, state.best_gradient)
    state.best_loss = torch.where(better, value, state.best_loss)


def _check(state: _Search, window: int) -> None:
    """Halve the step, and go back to the best iterate, where progress has stopped (conditions 1 and 2)."""
    stuck = ~state.halved & (state.checked_loss >= state.best_loss)
    state.halved = (state.increases <= INCREASES * window) | stuck
    state.step = torch.where(_wide(state.halved), state.step / 2, state.step)
    state.images = torch.where(_wide(state.halved), state.best, state.images)
    state.gradient = torch.where(_wide(state.halved), state.best_gradient, state.gradient)
    state.checked_loss, state.increases = state.best_loss, torch.zeros_like(state.increases)


def _checkpoints(steps: int) -> set[int]:
    """Steps after which progress is looked at: windows of 22 % of all steps, then 3 % less each time, at least 6 %."""
    window, at, found = max(int(0.22 * steps), 1), 0, set()
    while at + window <= steps:
        at += window
        found.add(at)
        window = max(window - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return found


def _clamp(state: _Search, images: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(images, state.high), state.low)


def _wide(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)


def _look(
    model: nn.Module,
    guide: nn.Module | None,
    images: Tensor,
    y: Tensor,
    rows: Tensor,
    loss: Callable[..., Tensor],
    targets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, its gradient, and whether the model is right."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = (guide or model)(images)
        value = loss(logits, y) if targets is None else loss(logits, y, targets[rows])
        gradient = torch.autograd.grad(value.sum(), images)[0]
    with torch.no_grad():
        decided = logits if guide is None else model(images)
    # A loss that is not finite (saturated logits) must not count as best, nor poison the next iterate.
    value = value.detach().nan_to_num(nan=-torch.inf, posinf=torch.finfo(value.dtype).max)
    return value, gradient.nan_to_num(), decided.argmax(1) == y


def search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    start: Tensor,
    *,
    loss: LossName,
    steps: int,
    targets: int,
    guide: nn.Module | None,
) -> Tensor:
    """`apgd` on a loss by its name; a targeted one aims at the most likely other classes in turn, each from `start`,
    on what still stands. Arguments and result as of `apgd`; of several targets the largest margin counts."""
    if loss in UNTARGETED:
        return apgd(model, x, y, eps, start, UNTARGETED[loss], steps=steps, guide=guide)
    with torch.no_grad():
        order = rivals(model(x), y)
    result, best = start.clone(), torch.full_like(eps, -torch.inf)
    rows = torch.arange(len(x), device=x.device)
    for rank in range(min(targets, order.shape[1])):
        if not len(rows):
            break
        aim = order[rows, rank]
        found = apgd(
            model, x[rows], y[rows], eps[rows], start[rows], TARGETED[loss], steps=steps, guide=guide, targets=aim
        )
        with torch.no_grad():
            reached = margin(model(found), y[rows])
        better = reached > best[rows]
        result[rows[better]], best[rows[better]] = found[better], reached[better]
        rows = rows[best[rows] <= 0]
    return result


def random_start(x: Tensor, eps: Tensor, draws: Draws, restart: int) -> Tensor:
    """x + ε·u / ‖u‖∞, clamped to [0, 1]: u uniform on the cube, scaled to its surface as AutoAttack does."""
    u = draws.unit(x.shape[1:], restart)
    u = u / u.abs().flatten(1).amax(1).clamp_min(torch.finfo(u.dtype).tiny).view(-1, 1, 1, 1)
    return (x + eps.view(-1, 1, 1, 1) * u.to(x)).clamp(0, 1)


def _idle(*, loss: LossName, **_: Any) -> dict[str, str]:
    return {} if loss in TARGETED else {"targets": "a loss that is dlr-targeted or margin-targeted"}


@attack("apgd", label="APGD", idle=_idle)
def registered_apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    loss: LossName = "ce",
    steps: Steps = 100,
    targets: Steps = 9,
    guide: GuideName = "own",
    restart: Annotated[int, Field(ge=0)] = 0,
) -> Tensor:
    """Auto-PGD (Croce & Hein 2020) from a random start, on any loss, its gradient from any of the model's views.

    Args:
        loss: ce, dlr, margin; or dlr-targeted, margin-targeted, which aim at the `targets` most likely other
            classes in turn.
        steps: gradient steps (per target).
        guide: own: the model's gradient; else the name of one of its views
            (models/equilibrium/surrogate_gradients.py). A model without it raises ContractError.
        restart: which of the examples' draws the start is.
    """
    start = random_start(x, eps, draws, restart)
    along = guide_of(model, guide)
    return search(model, x, y, eps, start, loss=loss, steps=steps, targets=targets, guide=along)

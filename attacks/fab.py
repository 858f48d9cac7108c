"""FAB (Croce & Hein, ICML 2020), L∞, targeted: towards the nearest point of a linearised decision boundary.

FAB looks for the smallest change that misclassifies. Here only the verdict within a ball counts, so an example is done
with its first misclassified point inside, where FAB itself would go on; one without is searched just as long.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.core.active_set import keep_active
from bench.attacks.core.contract import linf
from bench.attacks.core.losses import margin_targeted

OVERSHOOT = 1.05  # η: how far, in steps, a step goes
BACKWARD = 0.9  # β: a misclassified point goes back to this share of its way from the clean image
BIAS = 0.1  # α_max: the clean image's largest share in the point that a step starts from

_SHORTEST = 1e-8  # lengths below it count as it, so that two steps of length 0 have a ratio
_ROUNDS = 50  # Newton's method needs about 5


@dataclass
class _Search:
    """The examples still searched, one entry each."""

    rows: Tensor  # their positions in the batch
    x: Tensor
    y: Tensor
    aim: Tensor
    eps: Tensor
    now: Tensor


def fab(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, aim: Tensor, *, steps: int) -> Tensor:
    """Per example the first misclassified point within the ball that FAB meets on its way to a class; x where none is.

    A step takes two forwards and a backward. The forward that judges a point cannot be the one whose gradient is
    taken next: at most steps (between 50 and 85 % of them on the models tried) the point is misclassified outside the
    ball, and goes back towards x.

    Args:
        model: images in [0, 1] to logits (N, classes); it classifies x as y.
        x, y, eps: images (N, C, H, W), labels (N,), radii (N,).
        aim: the class aimed at, (N,).
        steps: linearisations per example.
    """
    result = x.clone()
    state = _Search(torch.arange(len(x), device=x.device), x, y, aim, eps, x)
    for _ in range(steps):
        if not len(state.rows):
            break
        _advance(state, *_linearised(model, state))
        with torch.no_grad():
            wrong = model(state.now).argmax(1) != state.y
        done = wrong & (linf(state.x, state.now) <= state.eps)
        result[state.rows[done]] = state.now[done]
        back = state.x + BACKWARD * (state.now - state.x)
        state.now = torch.where(wrong.view(-1, 1, 1, 1), back, state.now)
        keep_active(state, ~done)
    return result


def _linearised(model: nn.Module, state: _Search) -> tuple[Tensor, Tensor]:
    """z_t − z_y at the present points, (N,), and its gradient, (N, C·H·W)."""
    with torch.enable_grad():
        images = state.now.detach().requires_grad_()
        gap = margin_targeted(model(images), state.y, state.aim)
        gradient = torch.autograd.grad(gap.sum(), images)[0]
    return gap.detach().nan_to_num(), gradient.nan_to_num().flatten(1)


def _advance(state: _Search, gap: Tensor, gradient: Tensor) -> None:
    """To the boundary and a little further, from the present point and, with weight α ≤ α_max, from the clean image."""
    now, clean = state.now.flatten(1), state.x.flatten(1)
    step = to_hyperplane(now, gradient, gap)
    other = to_hyperplane(clean, gradient, gap + (gradient * (clean - now)).sum(1))
    length, far = (d.abs().amax(1, keepdim=True).clamp_min(_SHORTEST) for d in (step, other))
    alpha = (length / (length + far)).clamp_max(BIAS)
    ahead = (1 - alpha) * (now + OVERSHOOT * step) + alpha * (clean + OVERSHOOT * other)
    state.now = ahead.clamp(0, 1).view_as(state.now)


def to_hyperplane(points: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """The smallest d, by its largest entry, with points + d on a hyperplane and in [0, 1]; each (N, D).

    Every entry moves in the direction that helps, by the same r or as far as it can: r solves
    Σ |normal_i| min(r, room_i) = |gap|. The sum is concave and piecewise linear in r, so Newton's method from r = 0
    ascends to the exact solution in finitely many rounds, without sorting (the paper sorts the D breakpoints).
    Where the box does not reach the hyperplane, d goes to the corner nearest to it.

    Args:
        points: in [0, 1].
        normal: of the hyperplane {z: normal·z = normal·points − gap}.
        gap: (N,).
    """
    direction = -normal.sign() * torch.where(gap >= 0, 1.0, -1.0)[:, None]
    room = torch.where(direction > 0, 1 - points, points)
    weight, need = normal.abs(), gap.abs()[:, None]
    volume = weight * room
    radius = torch.zeros_like(need)
    for _ in range(_ROUNDS):
        full = room <= radius
        slope = weight.masked_fill(full, 0).sum(1, keepdim=True)
        reached = (volume * full).sum(1, keepdim=True)
        # A slope of 0: nothing can move any more, or nothing counts.
        solved = torch.where(slope > 0, (need - reached) / slope, torch.ones_like(need))
        ahead = torch.maximum(radius, solved)
        if torch.equal(ahead, radius):
            break
        radius = ahead
    return direction * torch.minimum(radius, room)

"""The dual bound of a monotone DEQ's margins, for the model as it is evaluated in its own type.

Offered where everything behind the state is affine: the forms `dense` and `3`. Form `7` has ReLU layers there, which
the bound does not go through.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.models.monotone.dual_bound import STEPS, Boxes, Network, prove
from bench.models.monotone.interval import Bounds, margin_rounding, propagate, rounding, worst_margins
from bench.models.monotone.layer import Operator

if TYPE_CHECKING:
    from bench.models.mondeq import MonDEQBody

ROOM = 1 + 1e-6  # for float64's own rounding of limits that are of float32's size
LARGE = 4_096  # units of a state from which on the search, seconds a margin, is left out and its start alone is tried
TOGETHER = 2**20  # numbers of one kind (pixels and units) that are searched at once


def is_affine(layer: nn.Module) -> bool:
    """Whether it is made of affine layers alone, in eval mode."""
    parts = [part for part in layer.modules() if not isinstance(part, nn.Sequential)]
    return all(isinstance(part, nn.BatchNorm2d | nn.AvgPool2d | nn.Flatten | nn.Linear | nn.Conv2d) for part in parts)


@torch.no_grad()
def proven_margins(body: "MonDEQBody", ball: Bounds, y: Tensor, wanted: Tensor, slack: float) -> Tensor:
    """Lower bounds of z_y − z_j over the ball, (N, classes): interval bounds, and dual ones where those prove nothing.

    Args:
        body: in float64, in eval mode, with an affine tail.
        ball: of normalised images, (N, C, H, W), as the model's own type may have rounded them.
        y: labels, (N,).
        wanted: which images are to be proven, bool (N,); the others keep the interval bounds.
        slack: relative size of a rounding error of the model's own arithmetic.
    """
    network, boxes, state = relaxation(body, ball, slack)
    features = propagate(body.tail, state, slack)
    found = worst_margins(body.head, features, y, slack)
    others = ~nn.functional.one_hot(y, found.shape[1]).bool()
    # What rounding may take from a margin: that of the head, and of each feature in the layers before it.
    in_head = margin_rounding(body.head, features.magnitude(), y, slack) * ROOM
    in_tail = (features.upper - propagate(body.tail, state).upper) * ROOM
    # An image that fails at its nearest class is spared the others.
    first = nn.functional.one_hot(found.where(others, torch.inf).argmin(1), found.shape[1]).bool()
    for turn in (first, ~first):
        open_ = others & ~(found > 0) & found.isfinite()
        image, target = (wanted[:, None] & open_ & turn).nonzero(as_tuple=True)
        for rows in torch.arange(len(image)).split(max(1, TOGETHER // (boxes.x.lower.shape[1] + network.bias.numel()))):
            i, j = image[rows], target[rows]
            weight = body.head.weight[y[i]] - body.head.weight[j]
            c, at_zero = _pulled_back(body.tail, weight, state.upper[:1])
            given = at_zero + body.head.bias[y[i]] - body.head.bias[j]
            less = in_head[i, j] + (weight.abs() * in_tail[i]).sum(1)
            bounds, _ = prove(network, boxes.take(i), c, less - given, steps=STEPS if c.shape[1] <= LARGE else 0)
            found[i, j] = found[i, j].maximum(bounds + given - less)
        wanted = wanted & ~(open_ & turn & ~(found > 0)).any(1)
    return found


def relaxation(body: "MonDEQBody", ball: Bounds, slack: float) -> tuple[Network, Boxes, Bounds]:
    """The layer as the dual bound takes it, what is known of it over the ball, and the state's bounds.

    z is what the model hands on, ReLU(p), where p is W at its solver's iterate, plus h, rounded. What separates p from
    Wz + h is W at the last step of the solver, whose norm the tolerance limits, and rounding. `sound_input` allows for
    the same in the bounds of p.
    """
    affine = body.injection[:-1]
    q = propagate(affine, ball, slack).map(lambda t: t.flatten(1))
    # Every layer widens by a term of its own that does not depend on where in the ball x lies.
    limit_e = (q.upper - propagate(affine, ball).upper.flatten(1)) * ROOM
    p = body.sound_input(ball, slack)
    state = p.map(torch.relu)
    recur, top = body.monotone.operator(), state.upper.flatten(1)
    step = 2 * body.settings[False].tol * top.norm(dim=1, keepdim=True)
    bias = body.bias.expand(1, *body.monotone.shape).flatten(1)
    rounded = rounding(recur.terms, slack) * recur.absolute()(top + step)
    rounded = rounded + rounding(1, slack) * (q.upper.clamp_min(0) + 2 * bias.abs())
    per_step = _per_unit(recur.weight.flatten(1).norm(dim=1), body.monotone.shape)
    # f is rounded on its own in the solver's last look at its residual.
    limit_f = (per_step * step + rounded + recur.absolute()(rounded)) * ROOM
    inject, shift = _injection(affine, ball.lower.shape[1:], body.monotone.shape)
    x, flat = (part.map(lambda t: t.flatten(1)) for part in (ball, p))
    return Network(inject, shift, recur, bias), Boxes(x, q, flat, limit_e, limit_f), state


def _injection(affine: nn.Sequential, images: torch.Size, shape: tuple[int, ...]) -> tuple[Operator, Tensor]:
    """A and d of the linear layer or convolution and the batch normalisation behind it."""
    layer = next(part for part in affine if isinstance(part, nn.Linear | nn.Conv2d))
    norm = next(part for part in affine if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d))
    assert norm.running_mean is not None and norm.running_var is not None and layer.bias is None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = layer.weight * scale.view(-1, *(1,) * (layer.weight.ndim - 1))
    shift = _per_unit(norm.bias - norm.running_mean * scale, shape)
    return Operator(weight, tuple(images) if weight.ndim == 4 else (weight.shape[1],)), shift


def _per_unit(of_channel: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(C,) to (1, n)."""
    return of_channel.view(1, -1, *(1,) * (len(shape) - 1)).expand(1, *shape).flatten(1)


def _pulled_back(tail: nn.Module, weight: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """c and k with weight·tail(z) = c·z + k for every state z: (K, features) to (K, n) and (K,)."""
    with torch.enable_grad():
        zero = torch.zeros_like(like).repeat(len(weight), *(1,) * (like.ndim - 1)).requires_grad_()
        value = (weight * tail(zero).flatten(1)).sum(1)
        (c,) = torch.autograd.grad(value.sum(), zero)
    return c.flatten(1), value.detach()

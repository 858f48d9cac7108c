"""Whether an input gradient is the derivative of what is evaluated: in float64, beside the grid, kinks left out."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import frozen
from bench.attacks.core.losses import margin

JITTER = 0.01  # share of a random image that is mixed in
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of the central differences, by their Euclidean length
AGREE = 1e-3  # two neighbouring steps whose results differ by less (relative) have no kink between them


@dataclass(frozen=True)
class Derivatives:
    """What the gradient says of a direction against what differences say.

    Attributes:
        errors: |difference| over the larger of the two, in [0, 2], one per point that is judged, (K,).
        excluded: points left out, since no two neighbouring steps agree: a kink lies there, or noise.
    """

    errors: Tensor
    excluded: int


def jittered(x: Tensor, seed: int = 0) -> Tensor:
    """Images of the interior of [0, 1], each pixel within JITTER of x.

    Images are multiples of 1/255 with flat parts, where the windows of a max-pooling tie: on the grid the network may
    have no derivative, and what autograd gives there is one of several.
    """
    u = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed)).to(x.device)
    return x.lerp(u, JITTER)


def margin_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∂/∂x of max_{i≠y} z_i − z_y, shaped like x; zero where autograd sees no way from x to the logits."""
    with frozen(model), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        total = margin(cast(Tensor, model(x.clone())), y).sum()
        if not total.requires_grad:
            return torch.zeros_like(x)
        return torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)[0]


def derivatives(model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Derivatives:
    """The margin's gradient along one random direction an image against central differences.

    Of several steps the largest two neighbours that agree count: a deep ReLU network has kinks within a large step, an
    iterative solver's tolerance drowns a small one, and a gradient that is cut is wrong at each.

    Args:
        model: in float64 and eval mode.
        x, y: images, float64, (N, C, H, W), and labels, (N,).
        seed: of the directions.
    """
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed)).to(x.device)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    along = (margin_gradient(model, x, y) * direction).flatten(1).sum(1)

    @torch.no_grad()
    def measure(step: float) -> Tensor:
        ahead, behind = (margin(model(x + sign * step * direction), y) for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    found, judged = torch.zeros_like(along), torch.zeros_like(along, dtype=torch.bool)
    coarse = measure(STEPS[0])
    for step in STEPS[1:]:
        fine = measure(step)
        agree = _apart(coarse, fine) <= AGREE
        found = torch.where(agree & ~judged, fine, found)
        judged |= agree
        coarse = fine
    return Derivatives(_apart(along, found)[judged], int((~judged).sum()))


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Relative to the larger; 0 where both are 0, 2 where one is not finite."""
    size = torch.maximum(a.abs(), b.abs())
    return ((a - b).abs() / size.clamp_min(torch.finfo(a.dtype).tiny)).nan_to_num(nan=2.0, posinf=2.0)

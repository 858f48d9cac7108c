"""The projection of Eq. 8 with its gradient written out, for searches: the Lyapunov function's weights are fixed.

Autograd's backward takes some thirty passes over states and hidden units, and keeps as many tensors. Written out it is
two matrix products and a dozen passes: of a small DEQ's gradient, as much as three evaluations of f.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """V's weights as numbers (`bench.models.lyapunov.function`).

    Attributes:
        first: W₀, (hidden, n).
        bias: b₀, (hidden,).
        u: U, (hidden,).
        skip: W₁, (n,).
        skip_bias: b₁, (1,).
        at_zero: g(0), (1,).
        eta, d: η and the width of σ's quadratic part.
    """

    first: Tensor
    bias: Tensor
    u: Tensor
    skip: Tensor
    skip_bias: Tensor
    at_zero: Tensor
    eta: float
    d: float


def project(field: Tensor, z: Tensor, weights: Weights, alpha: float) -> Tensor:
    """`Lyapunov.project` but for rounding, differentiable in field and z alone, and once: for create_graph
    RuntimeError is raised."""
    return cast(Tensor, _Projection.apply(field, z, weights, alpha))


class _Projection(torch.autograd.Function):
    """F − c∇V with c = max(φ, 0)/‖∇V‖², φ = ∇V·F + αV and ∇V = s(r D + W₁) + 2ηz.

    r is W₀z + b₀ held in [0, d], so that σ′ = r/d there; D = diag(U/d) W₀; s = σ′(g − g(0)) σ′(g's argument).
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, z: Tensor, weights: Weights, alpha: float) -> Tensor:
        d, per_d = weights.d, weights.u / weights.d
        inner = torch.addmm(weights.bias, z, weights.first.mT)
        held = inner.clamp(0, d)
        direction = torch.addmm(weights.skip, held, per_d[:, None] * weights.first)
        pre = torch.mv(z, weights.skip) + weights.skip_bias + torch.mv(_twice(inner, held), per_d / 2)
        pre_slope = pre.clamp(0, d) / d
        above = _twice(pre, d * pre_slope) / (2 * d) - weights.at_zero
        above_slope = above.clamp(0, d) / d
        value = _twice(above, d * above_slope) / (2 * d) + weights.eta * z.square().sum(1)
        slope = above_slope * pre_slope
        gradient = (2 * weights.eta * z).addcmul_(direction, slope[:, None])
        phi = torch.linalg.vecdot(gradient, field) + alpha * value
        square = torch.linalg.vecdot(gradient, gradient)
        usable = square >= torch.finfo(square.dtype).tiny
        inverse = torch.where(usable & (phi > 0), square.reciprocal(), 0)
        factor = phi * inverse
        # ∂s/∂g's argument: σ″ of each of the two, times what stands beside it.
        bend = _bend(above, d) * pre_slope * pre_slope + above_slope * _bend(pre, d)
        ctx.eta, ctx.d, ctx.alpha = weights.eta, d, alpha
        # Weights that were changed before backward are an error, as they are autograd's.
        ctx.save_for_backward(field, inner, direction, slope, gradient, inverse, factor, bend, weights.first, per_d)
        return torch.addcmul(field, gradient, factor[:, None], value=-1)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("a folded network has no second derivative; take it of the model itself")
        field, inner, direction, slope, gradient, inverse, factor, bend, first, per_d = ctx.saved_tensors
        along = torch.linalg.vecdot(given, gradient)
        phi = -along * inverse
        to_gradient = given * -factor[:, None]
        to_gradient.addcmul_(field, phi[:, None]).addcmul_(gradient, (-2 * factor * phi)[:, None])
        to_inner = (slope[:, None] * to_gradient) @ (first.mT * per_d)
        to_inner.mul_((inner > 0) & (inner < ctx.d))
        to_pre = torch.linalg.vecdot(to_gradient, direction) * bend
        to_z = torch.addmm(to_gradient, to_inner, first, beta=2 * ctx.eta)
        to_z.addcmul_(gradient, (ctx.alpha * phi)[:, None]).addcmul_(direction, to_pre[:, None])
        to_field = torch.addcmul(given, gradient, phi[:, None]) if ctx.needs_input_grad[0] else None
        return to_field, to_z, None, None


def _twice(x: Tensor, held: Tensor) -> Tensor:
    """2dσ(x), where `held` is x held in [0, d]."""
    return (2 * x - held).mul_(held)


def _bend(x: Tensor, d: float) -> Tensor:
    """σ″; 0 at the ends of the quadratic part."""
    return ((x > 0) & (x < d)) / d

"""The implicit layer of the paper's Eq. 11, with its Jacobian in closed form."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class ImplicitCell(nn.Module):
    """f(z, h) = BN(ReLU(h + W₂ BN(ReLU(W₁ z + b₁)) + b₂)), z and h in Rⁿ (Eq. 11).

    Eq. 11 writes one symbol for both biases and both batch normalisations; each is its own here.
    W₁ and W₂ start at N(0, 0.01²), where every sample converges in a few iterations.
    """

    def __init__(self, state: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(state, state), nn.Linear(state, state)
        self.inner_bn, self.outer_bn = nn.BatchNorm1d(state), nn.BatchNorm1d(state)
        for linear in (self.inner, self.outer):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def forward(self, z: Tensor, h: Tensor, track: bool = False) -> Tensor:
        """f(z, h), (N, n). In training `track` says whether the running statistics are updated."""
        y = self.outer(_batch_norm(self.inner_bn, torch.relu(self.inner(z)), track))
        return _batch_norm(self.outer_bn, torch.relu(h + y), track)

    def jacobian(self, z: Tensor, h: Tensor) -> Tensor:
        """∂f/∂z, (N, n, n), in eval mode; at a ReLU kink the side that autograd takes."""
        inner_scale, inner_shift = _affine(self.inner_bn)
        a = self.inner(z)
        pre = h + self.outer(torch.relu(a) * inner_scale + inner_shift)
        left = (pre > 0) * _affine(self.outer_bn)[0]
        right = (a > 0) * inner_scale
        return left[:, :, None] * ((self.outer.weight * right[:, None, :]) @ self.inner.weight)

    @torch.no_grad()
    def folded(self) -> "Folded":
        """f in eval mode for solvers, which call it many times; equal to `forward` but for rounding."""
        (inner_scale, inner_shift), (scale, shift) = _affine(self.inner_bn), _affine(self.outer_bn)
        return Folded(
            inner=self.inner.weight,
            bias=self.inner.bias,
            outer=self.outer.weight * inner_scale,
            offset=torch.addmv(self.outer.bias, self.outer.weight, inner_shift),
            scale=scale,
            shift=shift,
        )


@dataclass(frozen=True)
class Folded:
    """f(z, h) = s ⊙ ReLU(c + V₂ ReLU(W₁ z + b₁)) + t: Eq. 11 with normalisations folded away, c = `inject(h)`.

    Attributes:
        inner, outer: W₁ and V₂, (n, n).
        bias, offset, scale, shift: b₁, c − h, s and t, (n,).
    """

    inner: Tensor
    bias: Tensor
    outer: Tensor
    offset: Tensor
    scale: Tensor
    shift: Tensor

    def inject(self, h: Tensor) -> Tensor:
        """c, (N, n), from h."""
        return h + self.offset

    def __call__(self, z: Tensor, c: Tensor, *, out: Tensor | None = None) -> Tensor:
        """f, (N, n), into `out` where it is given."""
        hidden = torch.addmm(self.bias, z, self.inner.mT).relu_()
        outer = torch.addmm(c, hidden, self.outer.mT, out=out).relu_()
        return torch.addcmul(self.shift, outer, self.scale, out=out)

    def slopes(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """l and r, (N, n) each, of the Jacobian ∂f/∂z = diag(l) V₂ diag(r) W₁."""
        a = torch.addmm(self.bias, z, self.inner.mT)
        right = (a > 0).to(a.dtype)
        return (torch.addmm(c, a.relu_(), self.outer.mT) > 0) * self.scale, right

    def input_adjoint(self, u: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(∂f/∂h)ᵀu, (N, n)."""
        return left * u

    def adjoint(self, u: Tensor, left: Tensor, right: Tensor, g: Tensor, *, out: Tensor | None = None) -> Tensor:
        """(∂f/∂z)ᵀu + g, (N, n), at the slopes l and r, into `out` where it is given."""
        return torch.addmm(g, ((left * u) @ self.outer).mul_(right), self.inner, out=out)


def _batch_norm(bn: nn.BatchNorm1d, x: Tensor, track: bool) -> Tensor:
    if bn.training and not track:
        return functional.batch_norm(x, None, None, bn.weight, bn.bias, training=True, eps=bn.eps)
    return cast(Tensor, bn(x))


def _affine(bn: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
    return scale, bn.bias - bn.running_mean * scale

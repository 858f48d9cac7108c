"""The Lyapunov stability module: V (Eq. 9, 10, 12), its gradient, and the projection (Eq. 8).

∇V is written out instead of taken by autograd: it then exists under `no_grad`, is differentiable in
the ordinary way, and never runs the implicit-gradient hook of the state it is evaluated at.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.inference.folding import inert
from bench.models.lyapunov import closed_form_backward as projection


def smooth_relu(x: Tensor, d: float) -> Tensor:
    """σ of Eq. 12: 0, then x²/2d on (0, d), then x − d/2."""
    return torch.where(x < d, x.clamp_min(0).square() / (2 * d), x - d / 2)


def smooth_relu_slope(x: Tensor, d: float) -> Tensor:
    """σ′."""
    return (x / d).clamp(0, 1)


class Lyapunov(nn.Module):
    """V(z) = σ(g(z) − g(0)) + η‖z‖², g(z) = σ(U σ(W₀z + b₀) + W₁z + b₁) with U ≥ 0 (Eq. 9, 10).

    U is the softplus of a free parameter, so that it stays positive in training.

    Args:
        state: n, the dimension of z.
        hidden: width of the input-convex network's first layer.
        eta: η > 0.
        d: width of σ's quadratic part, > 0.
    """

    def __init__(self, state: int, hidden: int, eta: float, d: float) -> None:
        super().__init__()
        self.first, self.skip = nn.Linear(state, hidden), nn.Linear(state, 1)
        self.free_u = nn.Parameter(torch.empty(1, hidden))
        nn.init.kaiming_uniform_(self.free_u, a=5**0.5)
        self.eta, self.d = eta, d
        self.fixed = False  # whether the projection is that of `bench.models.lyapunov.closed_form_backward`

    def fold(self) -> None:
        """For searches (`bench.models.inference.folding`): the projection's gradient as it is written out."""
        self.fixed = True

    @property
    def u(self) -> Tensor:
        """U, (1, hidden), non-negative."""
        return functional.softplus(self.free_u)

    def icnn(self, z: Tensor) -> Tensor:
        """g(z), (N,)."""
        return smooth_relu(self._pre(self.first(z), z), self.d)

    def forward(self, z: Tensor) -> Tensor:
        """V(z), (N,)."""
        return self.value_and_gradient(z)[0]

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """V(z), (N,), and ∇V(z), (N, n); both differentiable once more, almost everywhere."""
        inner = self.first(z)
        pre = self._pre(inner, z)
        above = smooth_relu(pre, self.d) - self.icnn(torch.zeros_like(z[:1]))
        value = smooth_relu(above, self.d) + self.eta * z.square().sum(1)
        icnn_gradient = (smooth_relu_slope(inner, self.d) * self.u) @ self.first.weight + self.skip.weight
        slope = smooth_relu_slope(above, self.d) * smooth_relu_slope(pre, self.d)
        return value, slope[:, None] * icnn_gradient + 2 * self.eta * z

    def project(self, field: Tensor, z: Tensor, alpha: float, detached: bool = False) -> Tensor:
        """Proj(F; z): the vector nearest to F with ∇V(z)·F ≤ −αV(z), (N, n).

        Eq. 8 with its two cases exchanged, as in Manek & Kolter (2019): project where
        φ = ∇V·F + αV > 0. Where ∇V vanishes (z = 0) the condition holds for every F.
        `detached` takes ∇V as a constant in backward; the value is the same.
        """
        if self.fixed and not detached and inert(self):
            return projection.project(field, z, self._weights(), alpha)
        value, gradient = self.value_and_gradient(z)
        gradient = gradient.detach() if detached else gradient
        phi = torch.relu((gradient * field).sum(1) + alpha * value)
        square = gradient.square().sum(1)
        factor = torch.where(square > 0, phi / torch.where(square > 0, square, 1), 0)
        return field - factor[:, None] * gradient

    @torch.no_grad()
    def _weights(self) -> projection.Weights:
        zero = self.first.weight.new_zeros(1, self.first.in_features)
        return projection.Weights(
            first=self.first.weight,
            bias=self.first.bias,
            u=self.u[0],
            skip=self.skip.weight[0],
            skip_bias=self.skip.bias,
            at_zero=self.icnn(zero),
            eta=self.eta,
            d=self.d,
        )

    def _pre(self, inner: Tensor, z: Tensor) -> Tensor:
        return (smooth_relu(inner, self.d) @ self.u.mT + self.skip(z))[:, 0]

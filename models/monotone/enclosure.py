"""The interval equilibrium of a monotone layer, and bounds of its state that hold wherever its solver stopped."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.models.equilibrium.anderson import Anderson
from bench.models.equilibrium.solve import solve
from bench.models.monotone.interval import Bounds, rounding
from bench.models.monotone.layer import Operator


@dataclass(frozen=True)
class IntervalCell:
    """(u, l) ↦ (ReLU(Wμ + |W|r + b_u), ReLU(Wμ − |W|r + b_l)), μ = (u + l)/2, r = (u − l)/2.

    States and inputs hold both halves, upper first: z = (u, l), h = (b_u, b_l), (N, 2n). For any box [l, u]
    it maps to the tightest one around {ReLU(W z + b): l ≤ z ≤ u, b_l ≤ b ≤ b_u} that treats rows apart.

    Attributes:
        operator: W.
        slack: relative size of a rounding error, by which r is widened; 0 in training.
    """

    operator: Operator
    absolute: Operator
    slack: float = 0.0

    @property
    def gamma(self) -> float:
        return rounding(self.operator.terms, self.slack)

    def __call__(self, z: Tensor, h: Tensor, track: bool = False) -> Tensor:
        return torch.relu(self.before(z, h))

    def before(self, z: Tensor, h: Tensor) -> Tensor:
        """What ReLU is applied to, (N, 2n)."""
        upper, lower = z.chunk(2, 1)
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        if self.slack:
            radius = radius + self.gamma * torch.maximum(upper.abs(), lower.abs())
        middle, spread = self.operator(centre), self.absolute(radius)
        return torch.cat([middle + spread, middle - spread], 1) + h

    def jacobian(self, z: Tensor, h: Tensor) -> Tensor:
        """∂f/∂z, (N, 2n, 2n), of the dense form without slack."""
        positive = (self.absolute.weight + self.operator.weight) / 2
        negative = (self.absolute.weight - self.operator.weight) / 2
        both = torch.cat([torch.cat([positive, -negative], 1), torch.cat([-negative, positive], 1)])
        return (self(z, h) > 0)[:, :, None] * both


def interval_cell(operator: Operator, slack: float = 0.0) -> IntervalCell:
    """The interval form of z ↦ ReLU(W z + h)."""
    return IntervalCell(operator, operator.absolute(), slack)


def enclose(
    cell: IntervalCell, injected: Bounds, *, solver_tol: float = 0.0, tol: float = 1e-9, max_iter: int = 100
) -> Bounds:
    """Bounds of z*(x) for every x of the ball, sound however early the iteration stops: ReLU of `enclose_input`."""
    return enclose_input(cell, injected, solver_tol=solver_tol, tol=tol, max_iter=max_iter).map(torch.relu)


def enclose_input(
    cell: IntervalCell, injected: Bounds, *, solver_tol: float = 0.0, tol: float = 1e-9, max_iter: int = 100
) -> Bounds:
    """Bounds of p = W z + h at z = z*(x) for every x of the ball, sound however early the iteration stops.

    Let (u, l) be any iterate and ρ its largest residual. With v > 0 such that (I − |W|)v ≥ 1 and e = ρv, the
    map sends the box [l − e, u + e] into itself: its image lies within [l − ρ − |W|e, u + ρ + |W|e], and
    ρ + |W|e ≤ e. So it holds a fixed point of z ↦ ReLU(W z + b) for every b in [b_l, b_u] (Brouwer), the only
    one. e is at least (I − |W|)⁻¹|residual|, the same for dense and convolutional W, and v is computed once.

    A model's own solver also stops early. Where its relative residual is at most `solver_tol`, the state
    z ∈ [l − e, u + e] still holds for ρ enlarged by solver_tol·‖z‖; the bounds returned are those of p on that
    box, and what the model hands on is ReLU(p) = f(z).

    Args:
        cell: with slack > 0 where rounding is to be covered, its tensors in float64.
        injected: bounds of h, flattened, (N, n).
        solver_tol: relative residual up to which the model's own states are to be covered; 0: exact ones alone.
        tol: relative residual at which this iteration stops.
        max_iter: its iterations at most.

    Returns:
        Bounds of p, (N, n); infinite or NaN where no v was found, which proves nothing.
    """
    h = torch.cat([injected.upper, injected.lower], 1)
    solution = solve(cell, torch.zeros_like(h), h, Anderson(memory=5, beta=1.0), tol=tol, max_iter=max_iter)
    z, reach = solution.z, inverse_bound(cell, injected.upper[:1])
    off = (cell(z, h) - z).abs().amax(1, keepdim=True)
    # Twice, since the model's own state may lie above the box by what is being added.
    off = off + 2 * solver_tol * (z.chunk(2, 1)[0] + off * reach).norm(dim=1, keepdim=True)
    spread = off * reach * (1 + 1e-6)
    upper, lower = cell.before(z + torch.cat([spread, -spread], 1), h).chunk(2, 1)
    return Bounds(lower, upper)


def inverse_bound(cell: IntervalCell, like: Tensor, sweeps: int = 2_000) -> Tensor:
    """v > 0 with (I − (1 + γ)|W|)v ≥ 1, (1, n); infinite where the sweeps do not reach one.

    The Neumann series of (I − |W|)⁻¹1 is cut once the inequality holds by half, then scaled: what is used is
    checked, never the series' convergence. `like`, (1, n), gives shape and type.
    """
    one = torch.ones_like(like)
    v = one
    for _ in range(sweeps):
        image = (1 + cell.gamma) * cell.absolute(v)
        least = (v - image).min()
        if least >= 0.5:
            return v * ((1 + 1e-6) / least)
        v = one + image
    return torch.full_like(like, torch.inf)

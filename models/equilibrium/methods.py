"""Fixed-point methods: plain iteration, Anderson (Algorithm 1), Broyden, Newton. Batched, per sample."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bench.models.equilibrium.solve import Method

MethodName = Literal["anderson", "broyden", "fixed-point", "newton"]
SolverName = Literal["alternating", "anderson", "broyden", "fixed-point", "newton"]
Jacobian = Callable[[Tensor, Tensor], Tensor]


class FixedPoint:
    """z ← f(z)."""

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        return fz

    def keep_rows(self, rows: Tensor) -> None:
        pass


class Anderson:
    """Anderson acceleration (the paper's Algorithm 1), in its difference form.

    With g = f(z) − z, γ = argmin ‖g − ΔG γ‖ over the last m differences and
    z ← z + βg − (ΔZ + βΔG) γ, which is Algorithm 1 with weights that sum to one. Columns of ΔG are
    scaled to unit length first: they shrink as the iteration converges, and float32 normal equations
    of unscaled ones stall near 1e-5. √(machine epsilon) on the diagonal costs no iterations and keeps
    rounding, which differs between batch sizes, from growing along the way.
    """

    def __init__(self, memory: int, beta: float) -> None:
        self.memory, self.beta = memory, beta
        self.k = 0
        self.dz = self.dg = self.z = self.g = torch.empty(0)

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        g = fz - z
        if self.k == 0:
            self.dz = z.new_zeros(len(z), self.memory, z.shape[1])
            self.dg = torch.zeros_like(self.dz)
            proposal = z + self.beta * g
        else:
            slot = (self.k - 1) % self.memory
            self.dz[:, slot], self.dg[:, slot] = z - self.z, g - self.g
            filled = min(self.k, self.memory)
            proposal = self._mix(z, g, self.dz[:, :filled], self.dg[:, :filled])
        self.k, self.z, self.g = self.k + 1, z, g
        return proposal

    def keep_rows(self, rows: Tensor) -> None:
        if self.k:
            self.dz, self.dg, self.z, self.g = self.dz[rows], self.dg[rows], self.z[rows], self.g[rows]

    def _mix(self, z: Tensor, g: Tensor, dz: Tensor, dg: Tensor) -> Tensor:
        info = torch.finfo(z.dtype)
        scale = dg.norm(dim=2, keepdim=True).clamp_min(info.tiny)
        unit = dg / scale
        gram = unit @ unit.mT
        gram.diagonal(dim1=1, dim2=2).add_(info.eps**0.5)
        gamma = torch.linalg.solve_ex(gram, unit @ g[:, :, None])[0] / scale
        return z + self.beta * g - ((dz + self.beta * dg).mT @ gamma)[:, :, 0]


class Broyden:
    """Broyden's good method for g(z) = f(z) − z, with the full inverse Jacobian per sample.

    The states here are small (64 or 128), so the inverse is kept whole instead of as rank-one terms.
    """

    def __init__(self) -> None:
        self.inverse = self.z = self.g = torch.empty(0)

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        g = fz - z
        if not self.inverse.numel():
            self.inverse = -torch.eye(z.shape[1], dtype=z.dtype, device=z.device).repeat(len(z), 1, 1)
        else:
            dz, dg = z - self.z, g - self.g
            h_dg = (self.inverse @ dg[:, :, None])[:, :, 0]
            dz_h = (dz[:, None] @ self.inverse)[:, 0]
            denominator = (dz * h_dg).sum(1)
            # A vanishing denominator would make the update explode: such a sample skips it.
            usable = denominator.abs() > torch.finfo(z.dtype).eps * dz.norm(dim=1) * h_dg.norm(dim=1)
            weight = torch.where(usable, 1 / torch.where(usable, denominator, 1), 0)
            self.inverse = self.inverse + (weight[:, None] * (dz - h_dg))[:, :, None] * dz_h[:, None]
        self.z, self.g = z, g
        return z - (self.inverse @ g[:, :, None])[:, :, 0]

    def keep_rows(self, rows: Tensor) -> None:
        if self.inverse.numel():
            self.inverse, self.z, self.g = self.inverse[rows], self.z[rows], self.g[rows]


class Newton:
    """Semismooth Newton on f(z) − z, damped by pseudo-transient continuation, with the closed-form Jacobian.

    Implicit Euler steps of ż = f(z) − z, whose length grows as the residual falls (switched evolution
    relaxation, Kelley & Keyes 1998): early on it follows the flow to an equilibrium, where plain
    Newton cycles between pieces of the piecewise linear f; in the end it is Newton, and exact.
    """

    def __init__(self, jacobian: Jacobian) -> None:
        self.jacobian = jacobian
        self.norm = self.length = torch.empty(0)

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        g = fz - z
        norm = g.norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
        if not self.norm.numel():
            self.norm, self.length = norm, torch.ones_like(norm)
        self.length = (self.length * (self.norm / norm).clamp(0.1, 3)).clamp(1e-3, 1e12)
        self.norm = norm
        system = -self.jacobian(z, h)
        system.diagonal(dim1=1, dim2=2).add_(1 + 1 / self.length[:, None])
        update, info = torch.linalg.solve_ex(system, g)
        # Where the system is singular a plain iteration moves the sample on.
        return z + torch.where((info == 0)[:, None], update, g)

    def keep_rows(self, rows: Tensor) -> None:
        if self.norm.numel():
            self.norm, self.length = self.norm[rows], self.length[rows]


def make_method(name: SolverName, *, memory: int, beta: float, jacobian: Jacobian | None) -> Method:
    """A fresh method object.

    Args:
        name: which method.
        memory: Anderson's m ≥ 1, differences kept.
        beta: Anderson's mixing weight in (0, 1].
        jacobian: (z, h) -> (N, n, n); Newton needs it.

    Raises:
        ValueError: newton without a Jacobian; alternating, which is no step but a loop (`accelerate`).
    """
    if name == "alternating":
        raise ValueError("alternating solves each sample on its own, in evaluation alone")
    if name == "anderson":
        return Anderson(memory, beta)
    if name == "broyden":
        return Broyden()
    if name == "newton":
        if jacobian is None:
            raise ValueError("newton needs a layer with a closed-form Jacobian")
        return Newton(jacobian)
    return FixedPoint()

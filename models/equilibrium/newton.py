"""Damped Newton for a fixed point, batched, per sample."""

from collections.abc import Callable

import torch
from torch import Tensor

Jacobian = Callable[[Tensor, Tensor], Tensor]


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

"""Anderson acceleration of a fixed-point iteration (the paper's Algorithm 1), batched, per sample."""

import torch
from torch import Tensor


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

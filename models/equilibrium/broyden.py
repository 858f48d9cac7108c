"""Broyden's method for a fixed point, batched, per sample."""

import torch
from torch import Tensor


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

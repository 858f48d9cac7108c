"""The loop every fixed-point solver shares: per-sample stopping, freezing, and an honest residual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.models.equilibrium.work_counter import count

Map = Callable[[Tensor, Tensor], Tensor]


class Method(Protocol):
    """How the next iterate is proposed. One object serves one solve."""

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        """The next iterate, (N, n), from the present one, f's value there, and the input h."""

    def keep_rows(self, rows: Tensor) -> None:
        """Drop the history of all samples but `rows` (bool, (N,))."""


@dataclass(frozen=True)
class Solution:
    """Where a solve ended. Not converging is an outcome, stated here, never hidden.

    Attributes:
        z: (N, n), per sample the iterate with the smallest residual.
        residual: (N,), ‖f(z, h) − z‖ / ‖f(z, h)‖ at that iterate.
        iterations: (N,), evaluations of f spent on the sample.
    """

    z: Tensor
    residual: Tensor
    iterations: Tensor


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """‖fz − z‖ / ‖fz‖ per sample, (N,); 0 where both vanish."""
    norm = fz.norm(dim=1)
    return (fz - z).norm(dim=1) / norm.clamp_min(torch.finfo(z.dtype).tiny)


@torch.no_grad()
def solve(f: Map, z0: Tensor, h: Tensor, method: Method, *, tol: float, max_iter: int) -> Solution:
    """Solve z = f(z, h) for every sample on its own.

    A sample leaves the batch once its residual is below `tol`, so its answer does not depend on how
    long its batch mates take. f must treat samples independently.

    Args:
        f: (z, h) -> (N, n), for any subset of the samples.
        z0: start, (N, n).
        h: input of the layer, (N, …), sliced along with z.
        method: proposes iterates.
        tol: relative residual at which a sample is done.
        max_iter: evaluations of f per sample at most, ≥ 1.
    """
    solution = Solution(
        z0.clone(), z0.new_full((len(z0),), torch.inf), torch.zeros(len(z0), dtype=torch.long, device=z0.device)
    )
    rows = torch.arange(len(z0), device=z0.device)
    z, best, residual = z0, z0, solution.residual
    for iteration in range(1, max_iter + 1):
        fz = f(z, h)
        count(f_evaluations=len(z))
        now = relative_residual(z, fz)
        better = now < residual
        best = torch.where(better[:, None], z, best)
        residual = torch.where(better, now, residual)
        done = residual < tol
        if iteration == max_iter:
            done = torch.ones_like(done)
        if done.any():
            ended = rows[done]
            solution.z[ended] = best[done]
            solution.residual[ended] = residual[done]
            solution.iterations[ended] = iteration
            going = ~done
            if not going.any():
                break
            rows, z, fz, h = rows[going], z[going], fz[going], h[going]
            best, residual = best[going], residual[going]
            method.keep_rows(going)
        z = method.step(z, fz, h)
    return solution


@torch.no_grad()
def solve_together(f: Callable[[Tensor], Tensor], z0: Tensor, method: Method, *, tol: float, max_iter: int) -> Solution:
    """Solve z = f(z) where f couples the samples (batch statistics in training, a shared graph).

    Runs until the worst residual is below `tol`; returns the last iterate. Arguments as in `solve`,
    but f is called with z alone and counts its own work.
    """
    z, iteration = z0, 0
    while True:
        fz = f(z)
        iteration += 1
        residual = relative_residual(z, fz)
        if iteration == max_iter or bool((residual < tol).all()):
            return Solution(z, residual, torch.full_like(residual, iteration, dtype=torch.long))
        z = method.step(z, fz, z)

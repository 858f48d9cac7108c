"""The equilibrium layer: a cell, how its fixed point is found, and how it is differentiated."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.models.equilibrium.alternating import accelerate
from bench.models.equilibrium.gradient import EquilibriumCell, Foldable, GradientName, attach
from bench.models.equilibrium.methods import SolverName, make_method
from bench.models.equilibrium.precision import full_precision
from bench.models.equilibrium.solution_recorder import record
from bench.models.equilibrium.solve import Solution, solve, solve_together
from bench.models.equilibrium.work_counter import count

FallbackName = Literal["none", "newton"]
PERIOD = 3  # steps of the solver `alternating` between extrapolations


@dataclass(frozen=True)
class Solver:
    """Settings of one solve and its gradient; see `solve`, `accelerate`, `make_method` and `attach`."""

    method: SolverName
    memory: int
    beta: float
    max_iter: int
    tol: float
    fallback: FallbackName
    gradient: GradientName
    gradient_tol: float
    gradient_steps: int


class Equilibrium(nn.Module):
    """h (N, n) to the fixed point z* (N, n) of a cell, from z⁰ = 0.

    In eval mode samples are solved independently of each other. In training batch statistics couple
    them: they are solved together, and one evaluation of f, at the fixed point, updates the running
    statistics.
    """

    def __init__(self, cell: nn.Module, evaluation: Solver, training: Solver) -> None:
        super().__init__()
        self.cell = cell
        self.settings = {True: training, False: evaluation}

    @property
    def _cell(self) -> EquilibriumCell:
        return self.cell  # type: ignore[return-value]

    def forward(self, h: Tensor) -> Tensor:
        settings = self.settings[self.training]
        with full_precision(h) as inputs:
            return attach(
                self._cell,
                record(self.solve(inputs)).z,
                inputs,
                method=settings.gradient,
                tol=settings.gradient_tol,
                max_iter=settings.max_iter,
                steps=settings.gradient_steps,
                track=self.training,
            )

    def solve(self, h: Tensor) -> Solution:
        """The fixed point for h, detached, with its residual and iteration count per sample."""
        settings, h = self.settings[self.training], h.detach()
        if self.training:
            return self._together(h, settings)
        solution = self._apart(h, settings)
        failed = (solution.residual >= settings.tol).nonzero()[:, 0]
        if settings.fallback == "none" or not len(failed):
            return solution
        return self._retry(solution, failed, h, settings)

    @torch.no_grad()
    def value(self, z: Tensor, h: Tensor) -> Tensor:
        """f(z, h), (N, n), detached."""
        if not self.training and isinstance(self.cell, Foldable):
            folded = self.cell.folded()
            return folded(z, folded.inject(h))
        return self._cell(z, h)

    def _together(self, h: Tensor, settings: Solver) -> Solution:
        def coupled(z: Tensor) -> Tensor:
            count(f_evaluations=len(z))
            return self._cell(z, h)

        method = make_method(settings.method, memory=settings.memory, beta=settings.beta, jacobian=None)
        return solve_together(coupled, torch.zeros_like(h), method, tol=settings.tol, max_iter=settings.max_iter)

    def _apart(self, h: Tensor, settings: Solver) -> Solution:
        cell, z0 = self._cell, torch.zeros_like(h)
        if settings.method == "alternating":
            folded = cell.folded() if isinstance(cell, Foldable) else None

            def plain(z: Tensor, h: Tensor, out: Tensor) -> None:
                out.copy_(cell(z, h))

            return accelerate(
                folded or plain,
                z0,
                (folded.inject(h) if folded else h,),
                memory=settings.memory,
                period=PERIOD,
                beta=settings.beta,
                tol=settings.tol,
                max_iter=settings.max_iter,
            )
        method = make_method(settings.method, memory=settings.memory, beta=settings.beta, jacobian=cell.jacobian)
        return solve(cell, z0, h, method, tol=settings.tol, max_iter=settings.max_iter)

    def _retry(self, first: Solution, rows: Tensor, h: Tensor, settings: Solver) -> Solution:
        """Newton from zero for the samples that did not converge; the better of the two answers counts."""
        newton = make_method("newton", memory=1, beta=1.0, jacobian=self._cell.jacobian)
        z0 = torch.zeros_like(h[rows])
        second = solve(self._cell, z0, h[rows], newton, tol=settings.tol, max_iter=settings.max_iter)
        better = second.residual < first.residual[rows]
        taken = rows[better]
        first.z[taken], first.residual[taken] = second.z[better], second.residual[better]
        first.iterations[rows] += second.iterations
        return first

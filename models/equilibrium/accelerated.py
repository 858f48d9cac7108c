"""Anderson acceleration of many small fixed points at once, with little work beside f itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.counting import count
from models.equilibrium.solve import Solution

CROWD = 0.6  # share of the batch still at work, below which the samples that are done are dropped from it

Block = tuple[Tensor, Tensor]  # successive z + βg, and their g, each (steps, N, n)
Trail = list[tuple[Tensor, Tensor, Tensor]]  # samples, their iterates, and ‖g‖²/‖f‖², per period


@torch.no_grad()
def accelerate(
    f: Callable[..., Tensor],
    z0: Tensor,
    inputs: tuple[Tensor, ...],
    *,
    memory: int,
    period: int,
    beta: float,
    tol: float,
    max_iter: int,
    work: str = "f_evaluations",
) -> Solution:
    """Solve z = f(z, *inputs) for every sample on its own, extrapolating at every `period`-th step.

    The steps between are plain, z ← z + βg with g = f(z) − z: alternating Anderson–Picard iteration
    (Pratapa, Suryanarayana & Pask 2016, Banerjee et al. 2016); `period` 1 is Anderson's, the paper's
    Algorithm 1. Where f is cheap, extrapolating and testing for convergence cost several times as much as f.
    Residuals are looked at once a period. An answer is still the sample's first iterate whose residual is below
    `tol`, and samples leave the batch once enough of them are done, so nothing depends on a sample's batch mates.

    All iterates are kept until the end, for the samples that do not converge: meant for small states.

    Args:
        f: (z, *inputs) -> (N, n), for any subset of the samples.
        z0: start, (N, n).
        inputs: what f needs beside z, each (N, …), sliced along with z.
        memory: differences kept, ≥ 1; whole periods are kept, at least one.
        period: ≥ 1.
        beta: mixing weight in (0, 1].
        tol: relative residual at which a sample is done.
        max_iter: evaluations of f per sample at most, ≥ 1.
        work: what they are counted as (`models.counting`).
    """
    samples = len(z0)
    solution = Solution(
        z0.clone(), z0.new_full((samples,), torch.inf), torch.zeros(samples, dtype=torch.long, device=z0.device)
    )
    z, rows, left = z0, torch.arange(samples, device=z0.device), samples
    limit = z0.new_full((samples,), tol**2)  # below zero once a sample is done
    history: list[Block] = []
    trail: Trail = []
    for spent in range(0, max_iter, period):
        iterates, values = [], []
        for _ in range(min(period, max_iter - spent)):
            value = f(z, *inputs)
            iterates.append(z)
            values.append(value)
            z = value if beta == 1 else z.lerp(value, beta)
        count(**{work: len(z) * len(values)})
        points, fz = torch.stack(iterates), torch.stack(values)
        g = fz - points
        square = (g * g).sum(2).div_((fz * fz).sum(2).clamp_min_(torch.finfo(z.dtype).tiny))
        trail.append((rows, points, square))
        reached = square < limit
        done = reached.any(0).nonzero()[:, 0]
        if len(done):
            ended, step = rows[done], reached[:, done].byte().argmax(0)
            solution.z[ended], solution.residual[ended] = points[step, done], square[step, done]
            solution.iterations[ended] = step + (spent + 1)
            limit[done] = -1
            left -= len(done)
            if not left:
                break
        p = fz if beta == 1 else torch.cat([points[1:], z[None]])
        history = [*history, (p, g)][-max(1, (memory + 1) // period) :]
        if left < CROWD * len(z):
            stay = (limit > 0).nonzero()[:, 0]
            rows, limit = rows[stay], limit[stay]
            inputs = tuple(t[stay] for t in inputs)
            history = [(p.index_select(1, stay), g.index_select(1, stay)) for p, g in history]
        z = extrapolate(history)
    if left:
        _write_best(solution, rows[limit > 0], trail, max_iter)
    solution.residual.sqrt_()  # squares so far
    return solution


def extrapolate(history: list[Block]) -> Tensor:
    """Σ αᵢ pᵢ with α = argmin ‖Σ αᵢ gᵢ‖ over weights that sum to one, as in Algorithm 1, (N, n).

    Each gᵢ's own square is enlarged by √(machine epsilon): with g scaled to unit length that is a ridge, which
    in float32 costs no steps, keeps the equations regular, and keeps rounding from growing along the way.
    """
    p, g = (torch.cat(parts) for parts in zip(*history, strict=True))
    info, per_sample = torch.finfo(g.dtype), g.transpose(0, 1)
    gram = torch.bmm(per_sample, per_sample.mT)
    gram.diagonal(dim1=1, dim2=2).mul_(1 + info.eps**0.5).add_(info.tiny)
    weights = torch.linalg.solve_ex(gram, gram.new_ones(*gram.shape[:2], 1))[0]
    weights /= weights.sum(1, keepdim=True)
    return p.mul_(weights.transpose(0, 1)).sum(0)


def _write_best(solution: Solution, failed: Tensor, trail: Trail, max_iter: int) -> None:
    """The iterate with the smallest residual, for the samples that did not converge."""
    for rows, points, square in trail:
        at = torch.searchsorted(rows, failed)
        least, step = torch.where(square[:, at].isnan(), torch.inf, square[:, at]).min(0)
        better = least < solution.residual[failed]
        solution.residual[failed[better]] = least[better]
        solution.z[failed[better]] = points[step, at][better]
    solution.iterations[failed] = max_iter

"""Anderson acceleration of many small fixed points at once, with little work beside f itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.counting import count
from models.equilibrium.solve import Solution

CROWD = 0.6  # share of the batch still at work, below which the samples that are done are dropped from it

Block = tuple[Tensor, Tensor]  # successive z + βg, and their g, each (steps, N, n)
Trail = list[tuple[Tensor, list[Tensor], Tensor]]  # samples, their iterates, and ‖g‖²/‖f‖², per block


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
        fz = torch.stack(values)
        g = fz - torch.stack(iterates)
        square = (g * g).sum(2).div_((fz * fz).sum(2).clamp_min_(torch.finfo(z.dtype).tiny))
        trail.append((rows, iterates, square))
        reached = square < limit
        done = reached.any(0).nonzero()[:, 0]
        if len(done):
            _write(solution, rows[done], iterates, square, done, reached[:, done].byte().argmax(0), spent)
            left -= len(done)
            limit[done] = -1
        if not left:
            return solution
        p = fz if beta == 1 else torch.stack([*iterates[1:], z])
        history = [*history, (p, g)][-max(1, (memory + 1) // period) :]
        if left < CROWD * len(z):
            stay = (limit > 0).nonzero()[:, 0]
            rows, limit = rows[stay], limit[stay]
            inputs = tuple(t[stay] for t in inputs)
            history = [(p.index_select(1, stay), g.index_select(1, stay)) for p, g in history]
        z = extrapolate(history)
    _write_best(solution, rows[limit > 0], trail, max_iter)
    return solution


def extrapolate(history: list[Block]) -> Tensor:
    """Anderson's next iterate, p − ΔP γ with γ = argmin ‖g − ΔG γ‖, from differences to the newest, (N, n).

    The normal equations are solved with each column's square enlarged by √(machine epsilon), which is what
    `methods.Anderson` does with columns of unit length.
    """
    (p, g), info = (t[-1] for t in history[-1]), torch.finfo(history[-1][0].dtype)
    columns = sum(len(block[0]) for block in history) - 1
    if not columns:
        return p
    dp, dg = p.new_empty(columns, *p.shape), p.new_empty(columns + 1, *p.shape)
    at = 0
    for older_p, older_g in history:
        steps = min(len(older_p), columns - at)
        torch.sub(older_p[:steps], p, out=dp[at : at + steps])
        torch.sub(older_g[:steps], g, out=dg[at : at + steps])
        at += steps
    dg[columns] = g  # one product then holds the equations' right side too
    per_sample = dg.transpose(0, 1)
    products = torch.bmm(per_sample[:, :columns], per_sample.mT)
    gram, projection = products[:, :, :columns], products[:, :, columns:]
    gram.diagonal(dim1=1, dim2=2).mul_(1 + info.eps**0.5).add_(info.tiny)
    gamma = torch.linalg.solve_ex(gram, projection)[0]
    return p - dp.mul_(gamma.transpose(0, 1)).sum(0)


def _write(
    solution: Solution,
    rows: Tensor,
    iterates: list[Tensor],
    square: Tensor,
    at: Tensor,
    step: Tensor,
    spent: int,
) -> None:
    """Samples `rows`, at positions `at` of the batch, ended with the iterate number `step` of this period."""
    ended = torch.stack([z[at] for z in iterates])
    solution.z[rows] = ended[step, torch.arange(len(at), device=at.device)]
    solution.residual[rows] = square[step, at].sqrt()
    solution.iterations[rows] = spent + 1 + step


def _write_best(solution: Solution, failed: Tensor, trail: Trail, max_iter: int) -> None:
    """The iterate with the smallest residual, for the samples that did not converge."""
    for rows, iterates, square in trail:
        at = torch.searchsorted(rows, failed)
        for z, squares in zip(iterates, square, strict=True):
            residual = squares[at].sqrt()
            better = residual < solution.residual[failed]
            solution.z[failed[better]], solution.residual[failed[better]] = z[at[better]], residual[better]
    solution.iterations[failed] = max_iter

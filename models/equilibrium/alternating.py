"""Anderson acceleration of many small fixed points at once, with little work beside f itself."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bench.models.equilibrium.solve import Solution
from bench.models.equilibrium.work_counter import count

MANY = 512  # samples from which elimination entry by entry is faster than LU one after the other (one CPU thread)
CROWD = 0.6  # share of the batch still at work, below which the samples that are done are dropped from it

# Per period: samples, their iterates, (steps + 1, N, n), and ‖f(z) − z‖² / ‖f(z)‖² of all but the last.
History = list[tuple[Tensor, Tensor, Tensor]]


@torch.no_grad()
def accelerate(
    f: Callable[..., object],
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
    Algorithm 1. Where f is cheap, extrapolating and testing for convergence cost as much as f, and most of that is
    moving memory: iterates are written where the extrapolation reads them.
    Residuals are looked at once a period. An answer is still the sample's first iterate whose residual is below
    `tol`, and samples leave the batch once enough of them are done, so nothing depends on a sample's batch mates.

    All iterates are kept until the end, for the samples that do not converge: meant for small states.

    Args:
        f: (z, *inputs, out=) writes f's value, (N, n), into `out`, for any subset of the samples.
        z0: start, (N, n).
        inputs: what f needs beside z, each (N, …), sliced along with z.
        memory: differences kept, ≥ 1; whole periods are kept, at least one.
        period: ≥ 1.
        beta: mixing weight in (0, 1].
        tol: relative residual at which a sample is done.
        max_iter: evaluations of f per sample at most, ≥ 1.
        work: what they are counted as (`bench.models.equilibrium.work_counter`).
    """
    samples, blocks = len(z0), max(1, (memory + 1) // period)
    solution = Solution(
        z0.clone(), z0.new_full((samples,), torch.inf), torch.zeros(samples, dtype=torch.long, device=z0.device)
    )
    path, rows, left = _room(z0, min(period, max_iter)), torch.arange(samples, device=z0.device), samples
    path[0] = z0
    # Below zero once a sample is done, never zero before: the square of a tolerance may be.
    limit = z0.new_full((samples,), max(tol**2, torch.finfo(z0.dtype).tiny))
    mixed = list[Tensor]()  # of the last periods, z + βg, each (steps, N, n); their g lie one after the other
    differences = z0.new_empty(blocks * period, samples, z0.shape[1])
    history: History = []
    for number, spent in enumerate(range(0, max_iter, period)):
        steps, at = len(path) - 1, number % blocks
        g = differences[at * period : at * period + steps]
        values = _advance(f, path, inputs, beta, g)
        count(**{work: len(rows) * steps})
        square = torch.linalg.vector_norm(g, dim=2)
        square = square.div_(torch.linalg.vector_norm(values, dim=2).clamp_min_(torch.finfo(g.dtype).tiny)).square_()
        history.append((rows, path, square))
        reached = square < limit
        done = reached.any(0).nonzero()[:, 0]
        if len(done):
            ended, step = rows[done], reached[:, done].logical_not().cumprod(0).sum(0)  # steps before the first
            solution.z[ended], solution.residual[ended] = path[step, done], square[step, done]
            solution.iterations[ended] = step + (spent + 1)
            limit[done] = -1
            left -= len(done)
            if not left:
                break
        mixed[at : at + 1] = [path[1:]]
        if left < CROWD * len(rows):
            stay = (limit > 0).nonzero()[:, 0]
            rows, limit = rows[stay], limit[stay]
            inputs = tuple(t[stay] for t in inputs)
            differences = differences.index_select(1, stay)
            mixed = [p.index_select(1, stay) for p in mixed]
        if ahead := min(period, max_iter - spent - steps):
            path = _room(mixed[0][0], ahead)
            extrapolate(mixed, differences[: len(mixed) * period], out=path[0])
    if left:
        _write_best(solution, rows[limit > 0], history, max_iter)
    solution.residual.sqrt_()  # squares so far
    return solution


def _room(z: Tensor, steps: int) -> Tensor:
    """For a period's iterates: where it starts from, and what each step leads to, (steps + 1, N, n)."""
    return z.new_empty(steps + 1, *z.shape)


def _advance(f: Callable[..., object], path: Tensor, inputs: tuple[Tensor, ...], beta: float, g: Tensor) -> Tensor:
    """Plain steps z + βg from path[0], written behind it, with g = f(z) − z into `g`; f's values, (steps, N, n)."""
    if beta == 1:
        for before, after in pairwise(path):
            f(before, *inputs, out=after)
        torch.sub(path[1:], path[:-1], out=g)
        return path[1:]
    values = torch.empty_like(g)
    for (before, after), value, difference in zip(pairwise(path), values, g, strict=True):
        f(before, *inputs, out=value)
        torch.sub(value, before, out=difference)
        torch.add(before, difference, alpha=beta, out=after)
    return values


def extrapolate(mixed: list[Tensor], differences: Tensor, *, out: Tensor) -> None:
    """Σ αᵢ pᵢ with α = argmin ‖Σ αᵢ gᵢ‖ over weights that sum to one, as in Algorithm 1.

    Each gᵢ's own square is enlarged by √(machine epsilon): with g scaled to unit length that is a ridge, which
    in float32 costs no steps, keeps the equations regular, and keeps rounding from growing along the way.

    Args:
        mixed: the pᵢ, one block after the other, each (steps, N, n).
        differences: the gᵢ, (all steps, N, n), in the same order.
        out: where the sum goes, (N, n).
    """
    info, per_sample = torch.finfo(differences.dtype), differences.transpose(0, 1)
    gram = torch.bmm(per_sample, per_sample.mT)
    gram.diagonal(dim1=1, dim2=2).mul_(1 + info.eps**0.5).add_(info.tiny)
    weights = (_by_lu if len(gram) < MANY else _by_elimination)(gram)
    # Step by step: a batched product of so small matrices takes ten times as long.
    for number, p in enumerate(p for block in mixed for p in block):
        if number:
            out.addcmul_(p, weights[number, :, None])
        else:
            torch.mul(p, weights[0, :, None], out=out)


def _by_lu(gram: Tensor) -> Tensor:
    """x with Gx = 1, divided by its sum, of each G (k, k) of (N, k, k), as (k, N)."""
    x = torch.linalg.solve_ex(gram, gram.new_ones(gram.shape[:2]))[0].T
    return x / x.sum(0)


def _by_elimination(gram: Tensor) -> Tensor:
    """The same for positive definite G, all at once entry by entry: a library solves them one after the other."""
    a = gram.permute(1, 2, 0).contiguous()
    x = torch.ones_like(a[0])
    for i in range(len(a) - 1):
        share = a[i + 1 :, i] / a[i, i]
        a[i + 1 :, i + 1 :].addcmul_(share[:, None], a[i, i + 1 :], value=-1)
        x[i + 1 :].addcmul_(share, x[i], value=-1)
    for i in reversed(range(len(a))):
        x[i].sub_((a[i, i + 1 :] * x[i + 1 :]).sum(0)).div_(a[i, i])
    return x.div_(x.sum(0))


def _write_best(solution: Solution, failed: Tensor, history: History, max_iter: int) -> None:
    """The iterate with the smallest residual, for the samples that did not converge."""
    for rows, path, square in history:
        at = torch.searchsorted(rows, failed)
        least, step = torch.where(square[:, at].isnan(), torch.inf, square[:, at]).min(0)
        better = least < solution.residual[failed]
        solution.residual[failed[better]] = least[better]
        solution.z[failed[better]] = path[step, at][better]
    solution.iterations[failed] = max_iter

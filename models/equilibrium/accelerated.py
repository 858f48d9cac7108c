"""Anderson acceleration of many small fixed points at once, with little work beside f itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.counting import count
from models.equilibrium.solve import Solution

CROWD = 0.6  # share of the batch still at work, below which the samples that are done are dropped from it

# Per period: samples, their first iterate, what f made of each, (steps, N, n), and ‖f(z) − z‖² / ‖f(z)‖².
Trail = list[tuple[Tensor, Tensor, Tensor, Tensor]]


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
    Algorithm 1. Where f is cheap, extrapolating and testing for convergence cost several times as much as f, and most
    of that is moving memory: iterates are written where the extrapolation reads them.
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
        work: what they are counted as (`models.counting`).
    """
    samples, blocks = len(z0), max(1, (memory + 1) // period)
    solution = Solution(
        z0.clone(), z0.new_full((samples,), torch.inf), torch.zeros(samples, dtype=torch.long, device=z0.device)
    )
    z, rows, left = z0, torch.arange(samples, device=z0.device), samples
    # Below zero once a sample is done, never zero before: the square of a tolerance may be.
    limit = z0.new_full((samples,), max(tol**2, torch.finfo(z0.dtype).tiny))
    mixed = list[Tensor]()  # of the last periods, z + βg, each (steps, N, n); their g lie one after the other
    differences = z0.new_empty(blocks * period, samples, z0.shape[1])
    trail: Trail = []
    for number, spent in enumerate(range(0, max_iter, period)):
        steps, at = min(period, max_iter - spent), number % blocks
        g = differences[at * period : at * period + steps]
        ahead, values = _advance(f, z, inputs, beta, g)
        count(**{work: len(z) * steps})
        square = torch.linalg.vector_norm(g, dim=2)
        square = square.div_(torch.linalg.vector_norm(values, dim=2).clamp_min_(torch.finfo(z.dtype).tiny)).square_()
        trail.append((rows, z, ahead, square))
        reached = square < limit
        done = reached.any(0).nonzero()[:, 0]
        if len(done):
            ended, step = rows[done], reached[:, done].byte().argmax(0)
            solution.z[ended], solution.residual[ended] = _iterate(z, ahead, step, done), square[step, done]
            solution.iterations[ended] = step + (spent + 1)
            limit[done] = -1
            left -= len(done)
            if not left:
                break
        mixed[at : at + 1] = [ahead]
        if left < CROWD * len(z):
            stay = (limit > 0).nonzero()[:, 0]
            rows, limit = rows[stay], limit[stay]
            inputs = tuple(t[stay] for t in inputs)
            differences = differences.index_select(1, stay)
            mixed = [p.index_select(1, stay) for p in mixed]
        if steps == period:
            z = extrapolate(mixed, differences[: len(mixed) * period])
    if left:
        _write_best(solution, rows[limit > 0], trail, max_iter)
    solution.residual.sqrt_()  # squares so far
    return solution


def _advance(
    f: Callable[..., object], z: Tensor, inputs: tuple[Tensor, ...], beta: float, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Plain steps from z: what each leads to, z + βg, and f's values, both (steps, N, n); f(z) − z goes into `g`."""
    ahead = torch.empty_like(g)
    if beta == 1:
        for step, out in enumerate(ahead):
            f(ahead[step - 1] if step else z, *inputs, out=out)
        torch.sub(ahead[0], z, out=g[0])
        torch.sub(ahead[1:], ahead[:-1], out=g[1:])
        return ahead, ahead
    values = torch.empty_like(g)
    for step, out in enumerate(values):
        before = ahead[step - 1] if step else z
        f(before, *inputs, out=out)
        torch.sub(out, before, out=g[step])
        torch.add(before, g[step], alpha=beta, out=ahead[step])
    return ahead, values


def _iterate(z: Tensor, ahead: Tensor, step: Tensor, of: Tensor) -> Tensor:
    """The iterates of a period, z and what its steps lead to, at each sample's own step, (len(of), n)."""
    return torch.where((step > 0)[:, None], ahead[(step - 1).clamp_min(0), of], z[of])


def extrapolate(mixed: list[Tensor], differences: Tensor) -> Tensor:
    """Σ αᵢ pᵢ with α = argmin ‖Σ αᵢ gᵢ‖ over weights that sum to one, as in Algorithm 1, (N, n).

    Each gᵢ's own square is enlarged by √(machine epsilon): with g scaled to unit length that is a ridge, which
    in float32 costs no steps, keeps the equations regular, and keeps rounding from growing along the way.

    Args:
        mixed: the pᵢ, one block after the other, each (steps, N, n).
        differences: the gᵢ, (all steps, N, n), in the same order.
    """
    info, per_sample = torch.finfo(differences.dtype), differences.transpose(0, 1)
    gram = torch.bmm(per_sample, per_sample.mT)
    gram.diagonal(dim1=1, dim2=2).mul_(1 + info.eps**0.5).add_(info.tiny)
    weights = torch.linalg.solve_ex(gram, gram.new_ones(*gram.shape[:2], 1))[0]
    weights = weights / weights.sum(1, keepdim=True)
    each = [p for block in mixed for p in block]
    # Step by step: a batched product of so small matrices takes ten times as long.
    z = each[0] * weights[:, 0]
    for number, p in enumerate(each[1:], start=1):
        z.addcmul_(p, weights[:, number])
    return z


def _write_best(solution: Solution, failed: Tensor, trail: Trail, max_iter: int) -> None:
    """The iterate with the smallest residual, for the samples that did not converge."""
    for rows, z, ahead, square in trail:
        at = torch.searchsorted(rows, failed)
        least, step = torch.where(square[:, at].isnan(), torch.inf, square[:, at]).min(0)
        better = least < solution.residual[failed]
        solution.residual[failed[better]] = least[better]
        solution.z[failed[better]] = _iterate(z, ahead, step, at)[better]
    solution.iterations[failed] = max_iter

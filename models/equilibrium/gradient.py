"""The gradient of an equilibrium: a choice of its own, apart from the solver, present in `eval()` too.

Every method returns z* itself and differs only in what backward does with it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from bench.models.equilibrium.alternating import accelerate
from bench.models.equilibrium.anderson import Anderson
from bench.models.equilibrium.precision import full_precision
from bench.models.equilibrium.solve import solve_together
from bench.models.equilibrium.work_counter import count, counted

GradientName = Literal["exact", "implicit", "unrolled", "phantom", "one-step"]
Linear = Callable[[Tensor], Tensor]
NO_SECOND = "gradient={} has no second derivative; use gradient=unrolled for create_graph"
ADJOINT_PERIOD = 7  # steps between the adjoint's extrapolations, each of which looks at all of them
FEW = 48  # samples up to which batched LU is the faster way to an exact adjoint (64 units, one CPU thread)


class EquilibriumCell(Protocol):
    """The layer f: (z, h) -> (N, n), and in eval mode its Jacobian ∂f/∂z, (N, n, n)."""

    def __call__(self, z: Tensor, h: Tensor, track: bool = False) -> Tensor: ...

    def jacobian(self, z: Tensor, h: Tensor) -> Tensor: ...


class FoldedEquilibriumCell(Protocol):
    """A cell as solvers call it: h enters as `inject(h)`, and ∂f/∂z is known by its slopes (see `deq_cell`)."""

    def __call__(self, z: Tensor, c: Tensor, *, out: Tensor | None = None) -> Tensor: ...

    def inject(self, h: Tensor) -> Tensor: ...

    def slopes(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]: ...

    def input_adjoint(self, u: Tensor, left: Tensor, right: Tensor) -> Tensor: ...

    def adjoint(self, u: Tensor, left: Tensor, right: Tensor, g: Tensor, *, out: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Foldable(Protocol):
    """A cell with a cheaper form for evaluation."""

    def folded(self) -> FoldedEquilibriumCell: ...


def attach(
    cell: EquilibriumCell,
    z_star: Tensor,
    h: Tensor,
    *,
    method: GradientName,
    tol: float,
    max_iter: int,
    steps: int,
    track: bool,
    image: bool = False,
) -> Tensor:
    """z*, differentiable in h and in the cell's parameters.

    The value is z*, not f(z*, h): where f is expansive, one more application would magnify the
    rounding that differs between batch sizes. Where f contracts, `image` asks for f(z*, h).

    Args:
        cell: the layer.
        z_star: its fixed point, (N, n).
        h: its input, (N, …).
        method: `exact` solves (I − J)ᵀu = g as far as the type's rounding allows, sample by sample: by
            iteration with the closed-form J where the cell has it folded, and by LU of J for few samples and
            for those that do not converge (eval mode only, since batch statistics couple samples);
            `implicit` solves it iteratively; `phantom` and `one-step` differentiate `steps` or one
            application of f at z*; `unrolled` differentiates `steps` applications of f from zero.
        tol: relative residual of the adjoint (`implicit`).
        max_iter: vector–Jacobian products at most (`implicit`).
        steps: applications of f (`phantom`, `unrolled`).
        track: update batch normalisation's running statistics, by exactly this one evaluation.
        image: return f(z*, h) in place of z*; a monotone layer's bounds are proven for that.

    `exact` and `implicit` have no second derivative; asking for one raises RuntimeError.
    """
    z_star = z_star.detach()
    if method == "exact" and isinstance(cell, Foldable) and not image and len(h) > FEW and _fixed(cell):
        return cast(Tensor, _Folded.apply(h, z_star, cell, counted()))
    value = cell(z_star, h, track)
    count(f_evaluations=len(h))
    result = value.detach() if image else z_star
    if not value.requires_grad:
        return result
    if method == "one-step":
        return with_value(value, result)
    if method in ("phantom", "unrolled"):
        start = z_star if method == "phantom" else torch.zeros_like(z_star)
        return with_value(_apply(cell, start, h, steps), result)
    there = counted()
    solve_adjoint = _exact(cell, z_star, h) if method == "exact" else _implicit(cell, z_star, h, tol, max_iter)

    def adjoint(gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND.format(method))
        # An attack inside a recipe differentiates while the recipe's autocast is on.
        with there(), full_precision(gradient) as exact:
            count(vjps=len(gradient))
            return solve_adjoint(exact)

    value.register_hook(adjoint)
    return with_value(value, result)


def _fixed(cell: EquilibriumCell) -> bool:
    """Whether the cell is as an attack has it: in eval mode, none of its parameters to be differentiated."""
    return isinstance(cell, nn.Module) and not cell.training and not any(p.requires_grad for p in cell.parameters())


class _Folded(torch.autograd.Function):
    """z* of a folded cell whose parameters are fixed: backward needs the slopes at z*, and nothing of f's own graph."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, z_star: Tensor, cell: EquilibriumCell, there: Callable[[], AbstractContextManager[None]]
    ) -> Tensor:
        # The cell's too: weights that were changed before backward are an error, as they are autograd's.
        state = cast(nn.Module, cell)
        ctx.save_for_backward(h, z_star, *state.parameters(), *state.buffers())
        ctx.cell, ctx.there = cell, there
        return z_star.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND.format("exact"))
        h, z_star = ctx.saved_tensors[:2]
        folded = ctx.cell.folded()
        with ctx.there(), full_precision(gradient) as exact:
            count(vjps=len(exact))
            slopes = folded.slopes(z_star, folded.inject(h))
            return (
                folded.input_adjoint(_iterated(ctx.cell, folded, z_star, h, exact, slopes), *slopes),
                None,
                None,
                None,
            )


def with_value(differentiable: Tensor, value: Tensor) -> Tensor:
    """`value` to the bit (the added difference is zero), with the gradient of `differentiable`."""
    return value + (differentiable - differentiable.detach())


def _apply(cell: EquilibriumCell, z: Tensor, h: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        z = cell(z, h)
    count(f_evaluations=steps * len(h))
    return z


def _exact(cell: EquilibriumCell, z: Tensor, h: Tensor) -> Linear:
    def solve_adjoint(gradient: Tensor) -> Tensor:
        if isinstance(cell, Foldable) and len(z) > FEW:
            folded, h_fixed = cell.folded(), h.detach()
            return _iterated(cell, folded, z, h_fixed, gradient, folded.slopes(z, folded.inject(h_fixed)))
        return _by_lu(cell, z, h.detach(), gradient)

    return solve_adjoint


@torch.no_grad()
def _iterated(
    cell: EquilibriumCell,
    folded: FoldedEquilibriumCell,
    z: Tensor,
    h: Tensor,
    gradient: Tensor,
    slopes: tuple[Tensor, Tensor],
) -> Tensor:
    info = torch.finfo(z.dtype)
    # A confident model's gradients are so small that their squares vanish.
    size = gradient.abs().amax(1, keepdim=True).clamp_min(info.tiny)
    unit = gradient / size
    tol = info.eps**0.87  # 1e-6 in float32, 2e-14 in float64
    solution = accelerate(
        folded.adjoint,
        unit,
        (*slopes, unit),
        memory=ADJOINT_PERIOD,
        period=ADJOINT_PERIOD,
        beta=1.0,
        tol=tol,
        max_iter=40,
        work="vjps",
    )
    result = solution.z * size
    failed = (solution.residual >= tol).nonzero()[:, 0]
    if len(failed):
        result[failed] = _by_lu(cell, z[failed], h[failed], gradient[failed])
    return result


def _by_lu(cell: EquilibriumCell, z: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
    system = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) - cell.jacobian(z, h).mT
    solution, info = torch.linalg.solve_ex(system, gradient)
    singular = info != 0
    if singular.any():
        solution[singular] = (torch.linalg.pinv(system[singular]) @ gradient[singular, :, None])[:, :, 0]
    return solution


def _implicit(cell: EquilibriumCell, z: Tensor, h: Tensor, tol: float, max_iter: int) -> Linear:
    def solve_adjoint(gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            state = z.clone().requires_grad_()
            value = cell(state, h.detach())
        count(f_evaluations=len(z))

        def adjoint_map(u: Tensor) -> Tensor:
            count(vjps=len(u))
            return torch.autograd.grad(value, state, u, retain_graph=True)[0] + gradient

        return solve_together(
            adjoint_map, torch.zeros_like(gradient), Anderson(memory=5, beta=1.0), tol=tol, max_iter=max_iter
        ).z

    return solve_adjoint

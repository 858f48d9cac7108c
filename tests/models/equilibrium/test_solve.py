"""Step methods against a brute-force iteration in float64 and against torchdeq."""

import pytest
import torch
from torch import Tensor
from torchdeq.solver import get_solver

from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.equilibrium.methods import MethodName, make_method
from bench.models.equilibrium.solve import Solution, solve
from tests.conftest import Trained

METHODS: list[MethodName] = ["anderson", "broyden", "fixed-point", "newton"]


def run(cell: ImplicitCell, h: Tensor, name: MethodName, tol: float = 1e-12, max_iter: int = 200) -> Solution:
    method = make_method(name, memory=5, beta=1.0, jacobian=cell.jacobian)
    return solve(cell, torch.zeros_like(h), h, method, tol=tol, max_iter=max_iter)


@pytest.mark.parametrize("name", METHODS)
def test_reaches_the_fixed_point(name: MethodName, cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    solution = run(cell, h, name)
    assert float(solution.residual.max()) < 1e-12
    assert float((solution.z - truth).abs().max()) < 1e-10


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_does_not_depend_on_its_batch_mates(name: MethodName, cell: ImplicitCell, h: Tensor) -> None:
    together = run(cell, h, name, tol=1e-4)
    assert together.iterations.unique().numel() > 1 or name == "newton"  # otherwise nothing is tested
    for n in (1, 7):
        apart = torch.cat([run(cell, part, name, tol=1e-4).z for part in h.split(n)])
        assert float((apart - together.z).abs().max()) < 1e-10


@pytest.mark.parametrize("name", METHODS)
def test_reports_what_did_not_converge(name: MethodName, cell: ImplicitCell, h: Tensor) -> None:
    solution = run(cell, h, name, tol=1e-14, max_iter=2)
    assert solution.iterations.tolist() == [2] * len(h)
    value = cell(solution.z, h)
    measured = (value - solution.z).norm(dim=1) / value.norm(dim=1)
    torch.testing.assert_close(solution.residual, measured)
    assert float(solution.residual.min()) > 1e-14


def test_keeps_the_best_iterate(cell: ImplicitCell, h: Tensor) -> None:
    """An iteration that runs away is no worse than its best moment."""

    def expansive(z: Tensor, h: Tensor) -> Tensor:
        return 3 * z + h

    method = make_method("fixed-point", memory=5, beta=1.0, jacobian=None)
    start = -h / 2 + 1e-3  # the fixed point is −h/2
    solution = solve(expansive, start, h, method, tol=1e-9, max_iter=20)
    torch.testing.assert_close(solution.z, start)


@pytest.mark.parametrize("name", ["anderson", "broyden"])
def test_agrees_with_torchdeq(name: MethodName, cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    peer, _, _ = get_solver(name)(lambda z: cell(z, h), torch.zeros_like(h), max_iter=200, tol=1e-11, stop_mode="rel")
    ours = run(cell, h, name, tol=1e-11).z
    assert float((peer - truth).abs().max()) < 1e-6  # the peer itself is right here
    assert float((ours - peer).abs().max()) < 1e-6


def test_anderson_with_full_memory_solves_a_linear_system_in_n_steps() -> None:
    """On an affine map Anderson with memory ≥ n is GMRES-like: exact after n + 1 differences."""
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.double) / 4
    h = torch.randn(3, 4, dtype=torch.double)

    def affine(z: Tensor, h: Tensor) -> Tensor:
        return z @ matrix.T + h

    method = make_method("anderson", memory=4, beta=1.0, jacobian=None)
    solution = solve(affine, torch.zeros_like(h), h, method, tol=1e-10, max_iter=8)
    exact = torch.linalg.solve(torch.eye(4, dtype=torch.double) - matrix, h.T).T
    assert float((solution.z - exact).abs().max()) < 1e-8
    assert int(solution.iterations.max()) <= 7


def test_newton_needs_a_jacobian() -> None:
    with pytest.raises(ValueError, match="Jacobian"):
        make_method("newton", memory=5, beta=1.0, jacobian=None)


def test_newton_is_the_fallback_where_anderson_fails(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    """With five evaluations Anderson converges nowhere; the fallback takes all over, and says what it cost."""
    x = images[0]
    alone = trained("deq[max_iter=9,fallback=none]").diagnostics(x)
    helped = trained("deq[max_iter=9]").diagnostics(x)
    assert float((alone["residual"] > 1e-6).float().mean()) > 0.9
    assert float((helped["residual"] > 1e-6).float().mean()) < 0.5
    assert bool((helped["residual"] <= alone["residual"]).all())
    assert bool((helped["iterations"][helped["residual"] < alone["residual"]] > 9).all())
    # Training rounds differently on another processor, and some weights have an image that cycles: 1 of 359 was seen.
    assert float((trained("deq").diagnostics(x)["residual"] > 1e-6).float().mean()) <= 0.01

"""The evaluation solver and the iterated adjoint, against brute force, the step method, and LU."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bench.models.equilibrium.gradient as gradient_module
from bench.models.equilibrium import alternating as accelerated_module
from bench.models.equilibrium.alternating import _by_elimination, accelerate
from bench.models.equilibrium.alternating import _by_lu as weights_by_lu
from bench.models.equilibrium.anderson import Anderson
from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.equilibrium.gradient import _by_lu, _iterated
from bench.models.equilibrium.solve import Solution, solve
from bench.models.equilibrium.work_counter import counting
from tests.conftest import Trained


def run(cell: ImplicitCell, h: Tensor, **changes: Any) -> Solution:
    settings = {"memory": 5, "period": 3, "beta": 1.0, "tol": 1e-12, "max_iter": 200} | changes
    folded = cell.folded()
    return accelerate(folded, torch.zeros_like(h), (folded.inject(h),), **settings)


def adjoint(cell: ImplicitCell, z: Tensor, h: Tensor, g: Tensor) -> Tensor:
    folded = cell.folded()
    return _iterated(cell, folded, z, h, g, folded.slopes(z, folded.inject(h)))


def test_folded_is_the_cell(cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    folded, z = cell.folded(), truth + 0.1 * h
    torch.testing.assert_close(folded(z, folded.inject(h)), cell(z, h), rtol=0, atol=1e-13)
    u = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(2))
    expected = (cell.jacobian(z, h).mT @ u[:, :, None])[:, :, 0] + h
    found = folded.adjoint(u, *folded.slopes(z, folded.inject(h)), h)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "changes", [{}, {"period": 1}, {"period": 7}, {"memory": 1}, {"memory": 12, "period": 4}, {"beta": 0.6}], ids=str
)
def test_reaches_the_fixed_point(changes: dict[str, Any], cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    solution = run(cell, h, **changes)
    assert float(solution.residual.max()) < 1e-12
    assert float((solution.z - truth).abs().max()) < 1e-10


def test_a_tolerance_whose_square_vanishes_still_gives_the_best_iterate(cell: ImplicitCell, h: Tensor) -> None:
    single = copy.deepcopy(cell).float()
    solution = run(single, h.float(), tol=1e-25, max_iter=30)
    assert float(solution.residual.max()) < 1e-5 and bool(solution.z.any())


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_a_period_of_one_is_andersons_method(beta: float, cell: ImplicitCell, h: Tensor) -> None:
    """Weights that sum to one, and differences, are the same iteration: the same iterates until rounding."""
    ours = run(cell, h, period=1, beta=beta, tol=1e-6)
    theirs = solve(cell, torch.zeros_like(h), h, Anderson(5, beta), tol=1e-6, max_iter=200)
    assert float((ours.iterations == theirs.iterations).double().mean()) > 0.9
    assert float((ours.z - theirs.z).abs().max()) < 1e-6


@pytest.mark.parametrize("period", [1, 3])
def test_accelerates(period: int, cell: ImplicitCell, h: Tensor) -> None:
    plain = run(cell, h, period=1000, max_iter=1000, tol=1e-9)
    ours = run(cell, h, period=period, tol=1e-9)
    assert float(ours.iterations.double().mean()) < 0.8 * float(plain.iterations.double().mean())


def test_a_sample_does_not_depend_on_its_batch_mates(cell: ImplicitCell, h: Tensor) -> None:
    together = run(cell, h, tol=1e-4)
    assert together.iterations.unique().numel() > 2  # otherwise nothing is dropped and nothing is tested
    for n in (1, 7):
        apart = [run(cell, part, tol=1e-4) for part in h.split(n)]
        assert float((torch.cat([a.z for a in apart]) - together.z).abs().max()) < 1e-10
        assert torch.cat([a.iterations for a in apart]).equal(together.iterations)


def test_the_answer_is_the_first_iterate_below_the_tolerance(cell: ImplicitCell, h: Tensor) -> None:
    """Not a later one of the same period; and its residual and evaluations are what is said of them."""
    with counting() as work:
        solution = run(cell, h, tol=1e-4)
    value = cell(solution.z, h)
    measured = (value - solution.z).norm(dim=1) / value.norm(dim=1)
    torch.testing.assert_close(solution.residual, measured, rtol=1e-6, atol=0)
    assert int(solution.iterations.sum()) <= work.f_evaluations <= int(solution.iterations.max() + 2) * len(h)
    folded, z = cell.folded(), torch.zeros_like(h)
    c = folded.inject(h)
    for _ in range(2):
        z = folded(z, c)
    rough = run(cell, h, tol=float(((folded(z, c) - z).norm(dim=1) / folded(z, c).norm(dim=1)).median()))
    third = rough.iterations == 3
    assert 0 < int(third.sum()) < len(h)
    torch.testing.assert_close(rough.z[third], z[third])


def test_a_residual_that_rises_again_within_a_period_does_not_hide_the_first() -> None:
    """1 hardly moves, then goes to 5, where it stays: the first iterate below the tolerance is 1."""

    def f(z: Tensor, h: Tensor, out: Tensor) -> None:
        out.copy_(torch.where(z == 1, z + 1e-9, 5 * h))

    start = torch.ones(4, 1, dtype=torch.double)
    solution = accelerate(f, start, (start,), memory=5, period=3, beta=1.0, tol=1e-6, max_iter=30)
    assert torch.equal(solution.z, start) and solution.iterations.tolist() == [1] * 4


def test_samples_that_are_done_leave_the_batch() -> None:
    def f(z: Tensor, rate: Tensor, out: Tensor) -> None:
        sizes.append(len(z))
        torch.addcmul(torch.ones_like(z), z, rate, out=out)

    sizes = list[int]()
    rate = torch.cat([torch.full((90, 3), 1e-3), 0.4 + 0.4 * torch.rand(10, 3)]).double()
    solution = accelerate(f, torch.zeros_like(rate), (rate,), memory=2, period=3, beta=1.0, tol=1e-9, max_iter=99)
    torch.testing.assert_close(solution.z, 1 / (1 - rate), rtol=1e-7, atol=0)
    assert sizes[0] == 100 and sizes[-1] <= 10


@pytest.mark.parametrize("max_iter", [1, 4, 9])
def test_reports_what_did_not_converge(max_iter: int, cell: ImplicitCell, h: Tensor) -> None:
    with counting() as work:
        solution = run(cell, h, tol=1e-14, max_iter=max_iter)
    assert work.f_evaluations == max_iter * len(h)
    assert solution.iterations.tolist() == [max_iter] * len(h)
    value = cell(solution.z, h)
    measured = (value - solution.z).norm(dim=1) / value.norm(dim=1)
    torch.testing.assert_close(solution.residual, measured, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("error")
def test_keeps_the_best_iterate_and_survives_overflow() -> None:
    def square(z: Tensor, h: Tensor, out: Tensor) -> None:
        out.copy_((z + 1) * (z + 1) * 1e3 + h)

    start = torch.full((3, 4), 1.0)
    solution = accelerate(square, start, (start,), memory=5, period=3, beta=1.0, tol=1e-9, max_iter=20)
    assert bool(solution.z.isfinite().all()) and bool(solution.residual.isfinite().all())


def test_an_empty_batch_is_solved(cell: ImplicitCell, h: Tensor) -> None:
    assert run(cell, h[:0]).z.shape == (0, h.shape[1])


def test_iterated_adjoint_is_lus(cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    g = torch.randn(h.shape, dtype=h.dtype, generator=torch.Generator().manual_seed(3))
    g[0], g[1] = 0, g[1] * 1e-200  # its square is no number of float64
    exact = _by_lu(cell, truth, h, g)
    found = adjoint(cell, truth, h, g)
    assert float(((found - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(1e-300)).max()) < 1e-11
    single, arguments = copy.deepcopy(cell).float(), [t.float() for t in (truth, h, g)]
    found = adjoint(single, *arguments).double()
    assert float(((found - exact).norm(dim=1) / exact.norm(dim=1))[2:].max()) < 1e-5


def test_an_adjoint_that_does_not_converge_is_solved_by_lu(cell: ImplicitCell, h: Tensor, truth: Tensor) -> None:
    expansive = copy.deepcopy(cell)
    expansive.outer.weight.mul_(40)
    g = torch.ones_like(h)
    assert float(torch.linalg.eigvals(expansive.jacobian(truth, h)).abs().max()) > 10
    found = adjoint(expansive, truth, h, g)
    torch.testing.assert_close(found, _by_lu(expansive, truth, h, g), rtol=1e-8, atol=1e-8)


def test_few_samples_and_many_get_one_gradient(
    trained: Trained, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LU and iteration, in float32, on trained weights and through the whole model."""
    net, x = trained("deq"), images[0][:100]

    def slopes() -> Tensor:
        pixels = x.clone().requires_grad_()
        return torch.autograd.grad(net(pixels).logsumexp(1).sum(), pixels)[0].flatten(1)

    iterated = slopes()
    monkeypatch.setattr(gradient_module, "FEW", 1000)
    by_lu = slopes()
    assert not torch.equal(iterated, by_lu)
    assert float(((iterated - by_lu).norm(dim=1) / by_lu.norm(dim=1)).max()) < 1e-4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000), st.sampled_from([torch.float32, torch.float64]))
def test_weights_by_elimination_are_those_by_lu(size: int, seed: int, dtype: torch.dtype) -> None:
    """Of differences that shrink by a tenth a step, as a solver's do, with the ridge of `extrapolate`."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(30, size, 16, dtype=dtype, generator=generator) * 10.0 ** -torch.arange(size).view(-1, 1)
    gram = steps @ steps.mT
    gram.diagonal(dim1=1, dim2=2).mul_(1 + torch.finfo(dtype).eps ** 0.5)
    found, expected = _by_elimination(gram.clone()), weights_by_lu(gram)
    assert found.shape == (size, 30)
    torch.testing.assert_close(found.sum(0), torch.ones(30, dtype=dtype))
    close = 2e-3 if dtype == torch.float32 else 1e-7
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_many_samples_and_few_are_solved_alike(
    cell: ImplicitCell, h: Tensor, truth: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = run(cell, h)
    monkeypatch.setattr(accelerated_module, "MANY", 1)
    many = run(cell, h)
    assert float((many.z - truth).abs().max()) < 1e-10
    assert float((many.iterations == few.iterations).double().mean()) > 0.9

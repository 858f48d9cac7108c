"""W and |W| are monotone whatever M is, and the layer's iterations converge from anywhere to one point."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.models.equilibrium.anderson import Anderson
from bench.models.equilibrium.methods import FixedPoint
from bench.models.equilibrium.solve import Method, solve
from bench.models.monotone.enclosure import interval_cell
from bench.models.monotone.layer import STRETCH, Monotone, MonotoneCell
from tests.conftest import Trained
from tests.parts import submodule

SHAPES = ((1,), (2,), (7,), (3, 4, 5))


def matrix(layer: Monotone, dtype: torch.dtype = torch.double) -> Tensor:
    """W whole, also of a convolution: the operator's image of every unit vector."""
    size = torch.Size(layer.shape).numel()
    return layer.operator()(torch.eye(size, dtype=dtype)).T.detach().double()


def margin(w: Tensor) -> float:
    """The largest m with I − W ⪰ mI."""
    return 1 - float(torch.linalg.eigvalsh((w + w.T) / 2).max())


@st.composite
def layers(draw: st.DrawFn) -> Monotone:
    """M at random, then scaled by rows and columns over twenty orders of magnitude, with holes and one sign."""
    shape = draw(st.sampled_from(SHAPES))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    layer = Monotone(shape, draw(st.sampled_from([0.01, 0.5, 0.99])), draw(st.booleans())).double()
    powers = st.lists(st.integers(-10, 10), min_size=shape[0], max_size=shape[0])
    rest = (1,) * (layer.free.ndim - 2)
    rows, columns = (10.0 ** torch.tensor(draw(powers), dtype=torch.double) for _ in range(2))
    with torch.no_grad():
        layer.free.normal_()
        layer.free.mul_(rows.view(-1, 1, *rest) * columns.view(1, -1, *rest))
        if draw(st.booleans()):
            layer.free.mul_(torch.rand_like(layer.free) < 0.5)
        if draw(st.booleans()):
            layer.free.abs_()
        if layer.stretch is not None:
            layer.stretch.normal_(std=10)
    return layer


@settings(max_examples=150, deadline=None)
@given(layers())
def test_w_and_its_absolute_value_are_monotone(layer: Monotone) -> None:
    w = matrix(layer)
    sites = w.shape[0] // layer.shape[0]
    weights = layer.weights().detach().repeat_interleave(sites)
    # In the Λ-weighted inner product W is what ΛWΛ⁻¹ is in the plain one.
    plain = weights[:, None] * w / weights
    assert margin(plain) >= layer.target - 1e-9
    assert margin(plain.abs()) >= layer.target - 1e-9
    assert float(torch.linalg.eigvals(w.abs()).abs().max()) <= 1 - layer.target + 1e-9
    assert float(weights.min()) >= 1 / STRETCH - 1e-12
    assert float(weights.max()) <= 1 + 1e-12


@pytest.mark.parametrize(
    "name", ["mondeq[width=24]", "ibp-mondeq[eps=0.1,width=24]", "ibp-mondeq[eps=0.1,width=4,form=3]"]
)
@pytest.mark.parametrize("rescale", [False, True])
def test_training_leaves_them_monotone(name: str, rescale: bool, trained: Trained) -> None:
    net = trained(name.replace("]", f",rescale={str(rescale).lower()}]"))
    layer = copy.deepcopy(submodule(net, "body.monotone", Monotone)).double()
    w = matrix(layer)
    weights = layer.weights().detach().repeat_interleave(w.shape[0] // layer.shape[0])
    plain = weights[:, None] * w / weights
    assert margin(plain) >= layer.target - 1e-9
    assert margin(plain.abs()) >= layer.target - 1e-9


def test_the_bound_is_used_up() -> None:
    """|W| reaches 1 − m exactly, so that the test above has no room to spare."""
    torch.manual_seed(0)
    assert margin(matrix(Monotone((6,), 0.5, False).double()).abs()) == pytest.approx(0.5, abs=1e-6)


def test_rescaling_leaves_the_plain_inner_product() -> None:
    torch.manual_seed(0)
    layer = Monotone((6,), 0.5, True).double()
    assert layer.stretch is not None
    with torch.no_grad():
        layer.stretch.copy_(torch.linspace(-20, 20, 6))
    assert margin(matrix(layer).abs()) < 0.5


def test_float32_extremes_stay_finite_and_monotone() -> None:
    torch.manual_seed(0)
    for scale in (1e-30, 1e30):
        layer = Monotone((5,), 0.5, False)
        with torch.no_grad():
            layer.free.mul_(scale)
        w = matrix(layer, torch.float)
        assert bool(w.isfinite().all())
        assert margin(w.abs()) >= 0.5 - 1e-5


@pytest.mark.parametrize("shape", [(12,), (2, 4, 4)])
@pytest.mark.parametrize("method", [FixedPoint, lambda: Anderson(5, 1.0)])
def test_iterations_converge_from_any_start_to_one_point(shape: tuple[int, ...], method: Callable[[], Method]) -> None:
    torch.manual_seed(1)
    layer = Monotone(shape, 0.3, False).double()
    with torch.no_grad():
        layer.free.normal_()
    n, operator = torch.Size(shape).numel(), layer.operator()
    h = torch.randn(1, n, dtype=torch.double).expand(20, n)
    wide = torch.cat([h + 0.5, h - 0.5], 1)
    for cell, inside in ((MonotoneCell(operator), h), (interval_cell(operator), wide)):
        starts = 10.0 ** torch.arange(-3, 3).repeat(4)[:20, None] * torch.randn_like(inside)
        solution = solve(cell, starts, inside, method(), tol=1e-12, max_iter=400)
        assert float(solution.residual.max()) < 1e-12
        torch.testing.assert_close(solution.z, solution.z[:1].expand_as(solution.z), rtol=0, atol=1e-9)


def test_jacobians_are_autograds() -> None:
    torch.manual_seed(2)
    operator = Monotone((5,), 0.5, False).double().operator()
    for cell, n in ((MonotoneCell(operator), 5), (interval_cell(operator), 10)):
        z, h = torch.randn(2, 1, n, dtype=torch.double)
        found = torch.autograd.functional.jacobian(lambda s, c=cell, i=h: c(s, i), z)[0, :, 0]
        torch.testing.assert_close(cell.jacobian(z, h)[0], found)


def test_anneal_moves_m_and_ends_at_the_models_own() -> None:
    layer = Monotone((4,), 0.5, False).double()
    for progress, m in ((0.0, 0.99), (0.5, 0.745), (1.0, 0.5)):
        layer.anneal(0.99, progress)
        assert margin(matrix(layer).abs()) == pytest.approx(m, abs=1e-6)

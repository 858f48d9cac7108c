"""The Lyapunov module: every property the paper asks of V and of the projection, on random modules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.models.deq import Stabilised
from bench.models.lyapunov.function import Lyapunov, smooth_relu, smooth_relu_slope

N = 6


def make(seed: int, scale: float = 1.0) -> Lyapunov:
    torch.manual_seed(seed)
    module = Lyapunov(N, hidden=10, eta=1e-3, d=0.1).double()
    for parameter in module.parameters():
        parameter.data *= scale
    return module.requires_grad_(False)


def states(seed: int, n: int = 50, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, N, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


modules = st.builds(make, st.integers(0, 1000), st.floats(0.1, 5))
seeds = st.integers(0, 1000)


@settings(max_examples=40, deadline=None)
@given(modules, seeds)
def test_v_is_positive_definite_and_convex(module: Lyapunov, seed: int) -> None:
    a, b = states(seed), states(seed + 1)
    zero = torch.zeros(1, N, dtype=torch.double)
    assert float(module(zero)) == 0
    assert bool((module(a) >= module.eta * a.square().sum(1) - 1e-12).all())
    assert bool((module.u >= 0).all())
    for t in (0.1, 0.5, 0.8):
        between, chord = module(t * a + (1 - t) * b), t * module(a) + (1 - t) * module(b)
        assert bool((between <= chord + 1e-9 * chord.abs()).all())


@settings(max_examples=30, deadline=None)
@given(modules, seeds)
def test_gradient_is_autograds(module: Lyapunov, seed: int) -> None:
    z = states(seed).requires_grad_()
    value, gradient = module.value_and_gradient(z)
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), z)[0])


@settings(max_examples=40, deadline=None)
@given(modules, seeds, st.floats(0, 2))
def test_projection_is_the_nearest_stable_field(module: Lyapunov, seed: int, alpha: float) -> None:
    z, field = states(seed), states(seed + 1)
    value, gradient = module.value_and_gradient(z)
    stable = module.project(field, z, alpha)
    decay = (gradient * stable).sum(1)
    slack = 1e-9 * (gradient.norm(dim=1) * stable.norm(dim=1) + alpha * value)
    assert bool((decay <= -alpha * value + slack).all())
    phi = (gradient * field).sum(1) + alpha * value
    assert torch.equal(stable[phi <= 0], field[phi <= 0])  # what is stable already is left alone
    # Nearest: the change is along ∇V, and no longer than needed.
    moved = phi > 0
    torch.testing.assert_close((field - stable)[moved].norm(dim=1), (phi / gradient.norm(dim=1))[moved])


def test_projection_at_zero_is_the_field_itself() -> None:
    module, zero, field = make(0), torch.zeros(3, N, dtype=torch.double), states(2, n=3)
    assert torch.equal(module.project(field, zero, 0.9), field)


def test_smooth_relu_is_eq_12() -> None:
    x = torch.tensor([-1.0, 0.0, 0.05, 0.1, 0.3], dtype=torch.double, requires_grad=True)
    expected = torch.tensor([0, 0, 0.05**2 / 0.2, 0.05, 0.25], dtype=torch.double)
    torch.testing.assert_close(smooth_relu(x, 0.1).detach(), expected)
    slope = torch.autograd.grad(smooth_relu(x, 0.1).sum(), x)[0]
    torch.testing.assert_close(slope, smooth_relu_slope(x.detach(), 0.1))


@pytest.mark.parametrize("seed", range(5))
def test_field_readout_is_a_rescaled_state_where_g_is_below_g0(seed: int) -> None:
    """There V = η‖z‖² and F̂(z*) = −αz/2 exactly, if F(z*) = 0."""
    module, z = make(seed), states(seed, n=400)
    below = module.icnn(z) <= module.icnn(torch.zeros(1, N, dtype=torch.double))
    assert bool(below.any())
    stabilised = Stabilised(module, "field", alpha=0.9)
    out = stabilised(z, torch.zeros_like(z), torch.zeros_like(z))
    torch.testing.assert_close(out[below], -0.45 * z[below])
    step = Stabilised(module, "step", alpha=0.9)(z, torch.zeros_like(z), torch.zeros_like(z))
    torch.testing.assert_close(step, z + out)


def test_output_and_features_readouts_are_projections_at_their_points() -> None:
    module, z, h = make(1), states(1), states(2)
    residual = torch.zeros_like(z)
    assert torch.equal(Stabilised(module, "output", 0.9)(z, residual, h), module.project(z, z, 0.9))
    assert torch.equal(Stabilised(module, "features", 0.9)(z, residual, h), module.project(z, h, 0.9))

"""The projection with its gradient written out, against autograd through `Lyapunov.project`, in float64."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.models.images import Classifier, Images
from bench.models.inference.folding import folded
from bench.models.lyapunov import closed_form_backward as projection
from bench.models.lyapunov.function import Lyapunov
from bench.registry import model

N = 6
SMALL = Images((1, 8, 8), 10, (0.3,), (0.2,))
Both = tuple[Tensor, Tensor]


def make(seed: int, scale: float = 1.0) -> Lyapunov:
    torch.manual_seed(seed)
    module = Lyapunov(N, hidden=10, eta=1e-3, d=0.1).double()
    for parameter in module.parameters():
        parameter.data *= scale
    return module.requires_grad_(False)


def fixed(module: Lyapunov) -> Lyapunov:
    quick = copy.deepcopy(module)
    quick.fold()
    return quick


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def through(module: Lyapunov, field: Tensor, z: Tensor, alpha: float, weights: Tensor) -> tuple[Tensor, Both]:
    """The projection, and the gradients of its weighted sum in field and z."""
    field, z = field.clone().requires_grad_(), z.clone().requires_grad_()
    out = module.project(field, z, alpha)
    to_field, to_z = torch.autograd.grad(out, (field, z), weights)
    return out.detach(), (to_field, to_z)


def same(module: Lyapunov, field: Tensor, z: Tensor, alpha: float) -> float:
    """Asserts that both ways agree; the share of samples that were projected."""
    weights = draw(9, *z.shape)
    own, gradients = through(module, field, z, alpha, weights)
    other, found = through(fixed(module), field, z, alpha, weights)
    torch.testing.assert_close(other, own, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-10 * float(theirs.abs().max()))
    return float((own - field).ne(0).any(1).double().mean())


@settings(max_examples=40, deadline=None)
@given(st.builds(make, st.integers(0, 1000), st.floats(0.1, 5)), st.integers(0, 1000), st.floats(0, 2))
def test_value_and_gradients_are_autograds(module: Lyapunov, seed: int, alpha: float) -> None:
    z = draw(seed, 80, N) * torch.logspace(-3, 1, 80, dtype=torch.double)[:, None]
    share = same(module, draw(seed + 1, 80, N), z, alpha)
    assert share > 0, "no field was projected: nothing was tested"


def test_both_cases_of_the_projection_are_met() -> None:
    z = 2 * draw(1, 200, N)
    assert 0.2 < same(make(3), draw(2, 200, N), z, 0.1) < 0.8


def test_at_zero_and_in_every_piece_of_the_smooth_relu() -> None:
    """At a piece's very ends torch's own choice of side differs by version."""
    module = Lyapunov(N, hidden=N, eta=1e-3, d=0.125).double().requires_grad_(False)
    module.first.weight.data, module.first.bias.data = torch.eye(N, dtype=torch.double), torch.zeros(N).double()
    module.skip.weight.data, module.skip.bias.data = torch.full((1, N), 0.5).double(), torch.zeros(1).double()
    module.free_u.data.fill_(0.3)
    pieces = torch.tensor([-1, 0.01, 0.1, 2.0], dtype=torch.double)
    z = torch.cat([torch.zeros(1, N, dtype=torch.double), torch.cartesian_prod(*[pieces] * 3).repeat(1, 2)])
    assert same(module, draw(4, len(z), N), z, 0.9) > 0.5


@pytest.mark.parametrize("readout", ["field", "step", "output", "features"])
def test_a_folded_model_searches_by_it(readout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = list[int](), projection.project

    def counted(field: Tensor, *rest: Any) -> Tensor:
        calls.append(len(field))
        return real(field, *rest)

    monkeypatch.setattr(projection, "project", counted)
    torch.manual_seed(0)
    net = model["lyadeq"].target(SMALL, readout=readout, tol=1e-12, max_iter=200).double().eval().requires_grad_(False)
    quick, x = folded(net), torch.rand(60, *SMALL.shape, dtype=torch.double)
    own = input_gradient(net, x)
    assert not calls
    torch.testing.assert_close(input_gradient(quick, x), own, rtol=1e-6, atol=1e-8 * float(own.abs().max()))
    assert calls == [60]


def input_gradient(net: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).square().sum(), x)[0]


def test_the_detached_view_of_a_folded_model_stays_detached() -> None:
    torch.manual_seed(0)
    net = model["lyadeq"].target(SMALL, tol=1e-12, max_iter=200).double().eval().requires_grad_(False)
    quick, x = folded(net), torch.rand(60, *SMALL.shape, dtype=torch.double)
    assert isinstance(quick, Classifier)
    own = input_gradient(net.views()["detached"], x)
    scale = float(own.abs().max())
    torch.testing.assert_close(input_gradient(quick.views()["detached"], x), own, rtol=1e-6, atol=1e-8 * scale)
    assert float((own - input_gradient(net, x)).abs().max()) > 1e-3 * scale


def test_what_comes_in_is_left_alone_and_backward_can_be_asked_again() -> None:
    module, field, z = fixed(make(0)), draw(1, 20, N), draw(2, 20, N).requires_grad_()
    weights, before = draw(3, 20, N), (field.clone(), z.detach().clone(), draw(3, 20, N))
    out = module.project(field, z, 0.9)
    first, second = (torch.autograd.grad(out, z, weights, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    for now, then in zip((field, z.detach(), weights), before, strict=True):
        assert torch.equal(now, then)


def test_a_second_derivative_is_refused() -> None:
    z = draw(2, 5, N).requires_grad_()
    out = fixed(make(0)).project(draw(1, 5, N), z, 0.9)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.sum(), z, create_graph=True)


def test_a_state_whose_square_vanishes_is_left_as_it_is() -> None:
    module = fixed(make(0)).float()
    module.skip.weight.data.zero_()
    module.first.bias.data.fill_(-1)  # so that V is η‖z‖² near 0
    module.skip.bias.data.fill_(-1)
    field, z = draw(1, 4, N).float(), torch.tensor([0, 1e-25, 1e-20, 1e-19])[:, None].repeat(1, N).requires_grad_()
    out = module.project(field, z, 0.9)
    assert torch.equal(out.detach(), field)
    assert bool(torch.isfinite(torch.autograd.grad(out.sum(), z)[0]).all())


def test_an_empty_batch_is_projected() -> None:
    z = torch.zeros(0, N, dtype=torch.double, requires_grad=True)
    out = fixed(make(0)).project(torch.zeros(0, N, dtype=torch.double), z, 0.9)
    assert torch.autograd.grad(out.sum(), z)[0].shape == (0, N)


def test_weights_changed_before_backward_are_refused() -> None:
    module, z = fixed(make(0)), draw(2, 20, N).requires_grad_()
    out = module.project(draw(1, 20, N), z, 0.9)
    module.first.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(out.sum(), z)


def test_parameters_that_are_trained_and_hooks_are_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    module, field, z = fixed(make(0)), draw(1, 20, N), draw(2, 20, N)
    monkeypatch.setattr(projection, "project", lambda *_: pytest.fail("written out"))
    seen = list[int]()
    with module.first.register_forward_hook(lambda _, inputs, out: seen.append(len(out))):
        module.project(field, z, 0.9)
    assert 20 in seen
    module.skip.weight.requires_grad_()
    out = module.project(field, z, 0.9)
    assert float(torch.autograd.grad(out.sum(), module.skip.weight)[0].abs().sum()) > 0

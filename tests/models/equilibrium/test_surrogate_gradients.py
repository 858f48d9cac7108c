"""Views: the model's weights, another gradient."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bench.models.equilibrium.surrogate_gradients
from bench.models.equilibrium.surrogate_gradients import Parts, state_views
from bench.models.lyapunov.function import Lyapunov
from tests.conftest import Trained
from tests.parts import implicit_cell, submodule

DEQS = ["deq", "lyadeq-no-orth", "lyadeq", "mondeq", "lyadeq[readout=step]", "lyadeq[readout=features]"]


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(net(x), y, reduction="sum"), x)[0]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.cosine_similarity(a.flatten(1), b.flatten(1))


@pytest.mark.parametrize("name", DEQS)
def test_state_views_come_near_the_model_with_many_steps(
    name: str, trained: Trained, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, y = trained(name), images[0][:40], images[1][:40]
    own = gradient(net, x, y)

    def errors(steps: int) -> dict[str, float]:
        monkeypatch.setattr(bench.models.equilibrium.surrogate_gradients, "STEPS", steps)
        views = net.views()
        return {k: float((1 - cosine(gradient(views[k], x, y), own)).median()) for k in ("unrolled", "simultaneous")}

    short, long = errors(2), errors(60)
    for view in short:
        assert long[view] < 1e-3, view
        assert long[view] < short[view]
    with torch.no_grad():
        assert float((net.views()["unrolled"](x) - net(x)).abs().median()) < 1e-3


def test_intermediate_is_the_mean_over_states(
    trained: Trained, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = trained("deq"), images[0][:8]
    logits = []
    for steps in (1, 2, 3):
        monkeypatch.setattr(bench.models.equilibrium.surrogate_gradients, "STEPS", steps)
        logits.append(net.views()["unrolled"](x))
    torch.testing.assert_close(net.views()["intermediate"](x), torch.stack(logits).mean(0))


def test_simultaneous_adjoint_by_hand(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net, x = trained("deq"), images[0][:4]
    cell = implicit_cell(net)
    h = submodule(net, "body.extractor", nn.Module)(net.normalize(x)).detach().requires_grad_()
    parts = Parts(lambda x: x, cell, lambda z, h: z)
    g = torch.randn(4, h.shape[1], generator=torch.Generator().manual_seed(0))
    z = bench.models.equilibrium.surrogate_gradients.simultaneous(parts, h)
    found = torch.autograd.grad(z, h, g)[0]
    state, u = torch.zeros_like(h), torch.zeros_like(g)
    for _ in range(bench.models.equilibrium.surrogate_gradients.STEPS):
        state = 0.5 * state + 0.5 * cell(state, h.detach())
        jacobian = cell.jacobian(state.detach(), h.detach())
        u = 0.5 * u + 0.5 * ((jacobian.mT @ u[:, :, None])[:, :, 0] + g)
    torch.testing.assert_close(z, state)
    wanted = torch.autograd.grad(cell(state.detach(), h), h, u.detach())[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["lyadeq", "lyadeq[readout=step]", "lyadeq[readout=output]", "lyadeq[readout=features]"]
)
def test_lyapunov_views_have_the_models_value(name: str, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net, x, y = trained(name), images[0][:40], images[1][:40]
    views = net.views()
    own = gradient(net, x, y)
    for view in ("no-projection", "detached"):
        torch.testing.assert_close(views[view](x), net(x), rtol=1e-5, atol=1e-5)
        assert bool(gradient(views[view], x, y).flatten(1).abs().amax(1).min() > 0)
        assert float((gradient(views[view], x, y) - own).abs().max()) > 0


@pytest.mark.parametrize("flat", [True, False])
def test_bypass_is_exact_where_the_icnn_is_flat(flat: bool, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net, x, y = copy.deepcopy(trained("lyadeq")), images[0][:40], images[1][:40]
    if flat:
        # g is 0 everywhere: V is η‖z‖², and the module hands on −αz/2.
        submodule(net, "body.stabilised.lyapunov", Lyapunov).skip.bias.data.fill_(-1e4)
    own, bypassed = gradient(net, x, y), gradient(net.views()["no-projection"], x, y)
    same = float((bypassed - own).abs().max()) < 1e-3 * float(own.abs().max())
    assert same == flat


def test_models_without_an_equilibrium_have_none(trained: Trained) -> None:
    assert trained("fc-linear").views() == {}
    assert set(trained("deq").views()) == {"unrolled", "intermediate", "simultaneous"}
    assert set(trained("lyadeq").views()) == {"unrolled", "intermediate", "simultaneous", "no-projection", "detached"}


def test_views_are_frozen_with_their_model(trained: Trained) -> None:
    net = trained("deq")
    shared = {id(p) for p in net.parameters()}
    view = state_views(net.body, lambda: pytest.fail("cut open"))["unrolled"]
    assert {id(p) for p in view.parameters()} <= shared

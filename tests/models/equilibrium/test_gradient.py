"""The gradient the verdict rests on, against central differences in float64, on trained weights."""

import copy
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.equilibrium.layer import Equilibrium
from bench.models.equilibrium.solution_recorder import recording
from bench.models.equilibrium.work_counter import counting
from bench.models.images import Classifier
from tests.conftest import Trained
from tests.parts import equilibrium, implicit_cell, submodule

VARIANTS = ["deq", "deq-orth", "lyadeq", "lyadeq-no-orth"]
READOUTS = [f"lyadeq[readout={name}]" for name in ("step", "output", "features")]
PROBED, WANTED = 100, 32  # images tried, and images needed that cross no kink


def exact_twin(net: Classifier, **changes: Any) -> Classifier:
    """A float64 copy whose fixed point is solved by Newton, to 1e-12 or better, with the given solver settings."""
    twin = copy.deepcopy(net).double().eval()
    for layer in twin.modules():
        if isinstance(layer, Equilibrium):
            exact: dict[str, Any] = {"method": "newton", "tol": 1e-12, "max_iter": 30, "gradient_tol": 1e-12}
            layer.settings[False] = replace(layer.settings[False], **{**exact, **changes})
    return twin


def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(net(x), y, reduction="none")


def smooth_directions(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and directions that cross no kink, and the slope measured along them.

    A kink shows as a difference quotient that changes with the step. Returns x, y, directions, slopes.
    """
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    @torch.no_grad()
    def quotient(step: float) -> Tensor:
        return (loss(net, x + step * direction, y) - loss(net, x - step * direction, y)) / (2 * step)

    wide, narrow = quotient(2e-5), quotient(1e-5)
    smooth = ((wide - narrow).abs() < 1e-7 * narrow.abs()) & (narrow.abs() > 1e-4)
    return x[smooth], y[smooth], direction[smooth], narrow[smooth]


def worst_error(net: nn.Module, x: Tensor, y: Tensor, direction: Tensor, slope: Tensor) -> float:
    x = x.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(net, x, y).sum(), x)[0]
    return float((((gradient * direction).flatten(1).sum(1) - slope) / slope).abs().max())


@pytest.mark.parametrize("name", VARIANTS + READOUTS)
def test_agrees_with_central_differences(name: str, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net = trained(name)
    probe = smooth_directions(exact_twin(net), images[0][:PROBED].double(), images[1][:PROBED])
    assert len(probe[0]) >= WANTED
    assert worst_error(exact_twin(net, gradient="exact"), *probe) < 1e-5
    assert worst_error(exact_twin(net, gradient="implicit"), *probe) < 1e-5
    # The very same check sees an adjoint that is solved to 1e-1 only.
    assert worst_error(exact_twin(net, gradient="implicit", gradient_tol=1e-1), *probe) > 1e-5


def test_unrolled_and_phantom_approach_the_exact_gradient(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net = trained("deq")
    x, y = images[0][:PROBED].double(), images[1][:PROBED]
    twin = exact_twin(net)
    h = submodule(twin, "body.extractor", nn.Module)(twin.normalize(x))
    jacobian = implicit_cell(twin).jacobian(equilibrium(twin).solve(h).z, h)
    # Plain iteration converges where the spectral radius is below one, and only there.
    contracting = torch.linalg.eigvals(jacobian).abs().amax(1) < 0.8
    probe = smooth_directions(twin, x[contracting], y[contracting])
    assert len(probe[0]) >= WANTED
    for method in ("unrolled", "phantom"):
        short, long = (worst_error(exact_twin(net, gradient=method, gradient_steps=k), *probe) for k in (2, 200))
        assert long < 1e-5 < short
    assert worst_error(exact_twin(net, gradient="one-step"), *probe) > 1e-3


@pytest.mark.parametrize("gradient", ["exact", "implicit", "unrolled", "phantom", "one-step"])
def test_logits_do_not_depend_on_the_gradient_or_on_grad_mode(
    gradient: str, trained: Trained, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0][:20]
    reference, net = trained("lyadeq"), trained(f"lyadeq[gradient={gradient}]")
    with torch.no_grad():
        expected = reference(x)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(net(x.clone().requires_grad_()).detach(), expected, rtol=0, atol=1e-6)


def test_a_second_derivative_is_refused_not_wrong(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    x = images[0][:2].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(trained("deq")(x).sum(), x, create_graph=True)


def test_singular_system_gives_a_finite_gradient() -> None:
    """Where I − J is singular, the least-squares adjoint stands in for a division by zero."""
    from bench.models.equilibrium.gradient import attach

    class Identity(nn.Module):
        def forward(self, z: Tensor, h: Tensor, track: bool = False) -> Tensor:
            return z + 0 * h

        def jacobian(self, z: Tensor, h: Tensor) -> Tensor:
            return torch.eye(3).repeat(len(z), 1, 1)

    h = torch.ones(2, 3, requires_grad=True)
    value = attach(Identity(), torch.ones(2, 3), h, method="exact", tol=1e-6, max_iter=50, steps=1, track=False)
    assert torch.autograd.grad(value.sum(), h)[0].isfinite().all()


def test_a_backward_in_another_thread_is_counted_where_its_forward_was(
    trained: Trained, images: tuple[Tensor, Tensor]
) -> None:
    """As autograd runs it for tensors on a GPU."""
    net, x = trained("deq"), images[0][:60].clone().requires_grad_()
    with counting() as work, recording() as solutions:
        logits = net(x)
        before = work.vjps
        thread = Thread(target=lambda: logits.square().sum().backward())
        thread.start()
        thread.join()
    assert before == 0 and work.vjps >= 60
    assert len(solutions) == 1 and solutions[0].residual.shape == (60,)


@pytest.mark.parametrize("name", ["inner.weight", "outer_bn.running_var"])
def test_a_cell_changed_before_backward_is_refused(name: str, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net = copy.deepcopy(trained("deq")).eval().requires_grad_(False)
    x = images[0][:60].clone().requires_grad_()
    logits = net(x)
    state = dict([*implicit_cell(net).named_parameters(), *implicit_cell(net).named_buffers()])
    state[name].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(logits.sum(), x)

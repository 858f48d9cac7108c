"""Nine failures, planted one by one in a trained model or in its attack: the diagnostic meant for each finds it by
name, and passes the same model, on the same images, without it."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.gradient_sign import eq14_steps
from bench.data.load import Dataset
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE, diagnose
from bench.settings.config import Config
from tests.bench.diagnostics.cases import Attacks, Plant, make_case
from tests.conftest import Trained

Make = Callable[..., Context]


@pytest.fixture
def make(trained: Trained, digits: Dataset, config: Config) -> Make:
    return lambda name, **changes: make_case(name, trained, digits, config, **changes)


def run(name: str, context: Context) -> DiagnosticResult:
    return diagnose(SUITE[name], context)


def short(eps: Fraction) -> dict[str, dict[str, Any]]:
    """Ten steps, for what does not ask how strong the attack is."""
    return {"pgd": {"steps": 10, "alpha": float(eps / 4)}}


class Wrapped(nn.Module):
    """A trained model with something in front of it and behind."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(cast(Tensor, self.net(self.before(x))))


def cut(x: Tensor) -> Tensor:
    """All of the gradient."""
    return x.detach() + 0 * x


def half_cut(x: Tensor) -> Tensor:
    """The gradient of the image's upper half, as where one of two paths to the logits is detached."""
    top, bottom = x.chunk(2, dim=2)
    return torch.cat([top.detach(), bottom], dim=2)


def quantise(x: Tensor) -> Tensor:
    """To the 256 levels that images have, so that nothing else changes."""
    return (x * 255).round() / 255


PLANTED_IN_GRADIENT: dict[str, tuple[Plant, str]] = {
    "cut": (lambda net: Wrapped(net, cut), "zero or NaN"),
    "detached": (lambda net: Wrapped(net, lambda x: x.detach()), "zero or NaN"),
    "half cut": (lambda net: Wrapped(net, half_cut), "central differences"),
    "quantised": (lambda net: Wrapped(net, quantise), "zero or NaN"),
    "scaled logits": (lambda net: Wrapped(net, after=lambda z: 1e4 * z), "saturates in float32"),
}


@pytest.mark.parametrize("name", ["fc-linear", "deq"])
@pytest.mark.parametrize("planted", PLANTED_IN_GRADIENT)
def test_gradient(name: str, planted: str, make: Make) -> None:
    plant, said = PLANTED_IN_GRADIENT[planted]
    caught = run("gradient", make(name, plant=plant))
    assert caught.fired and caught.sign == "masking" and said in caught.sentence
    assert caught.verdict == "FAIL"
    assert run("gradient", make(name)).verdict == "OK"


def test_the_sentence_of_saturation_is_for_saturation_alone(make: Make) -> None:
    assert "saturates" not in run("gradient", make("deq", plant=lambda net: Wrapped(net, cut))).sentence


def test_noise_in_forward(make: Make) -> None:
    def noisy(net: nn.Module) -> nn.Module:
        return Wrapped(net, lambda x: x + 0.1 * torch.randn_like(x))

    caught = run("determinism", make("deq", plant=noisy, attacks=short))
    assert caught.verdict == "WARN" and "further forwards" in caught.sentence
    assert run("determinism", make("deq", attacks=short)).verdict == "OK"


@pytest.mark.parametrize("steps", [1, 5])
def test_too_few_steps(steps: int, make: Make) -> None:
    """Also where two steps break no more than one, since neither gets far from the image."""

    def weak(eps: Fraction) -> dict[str, dict[str, Any]]:
        return {"pgd": {"steps": steps, "alpha": 1 / 255, "random_start": False}}

    caught = run("convergence", make("fc-linear", attacks=weak))
    assert caught.verdict == "WARN" and caught.sign == "weak attack" and "steps in place of" in caught.sentence
    assert run("convergence", make("fc-linear")).verdict == "OK"


def paper(eps: Fraction) -> dict[str, dict[str, Any]]:
    steps = {"steps": eq14_steps(eps), "alpha": 1 / 255}
    return {"ifgsm": steps, "pgd": steps}


@pytest.mark.parametrize("name", ["zero-budget", "zero-gradient"])
def test_clamped_normalised_inputs(name: str, make: Make) -> None:
    protocol: dict[str, Attacks] = {"attacks": paper}
    caught = run(name, make("fc-linear", space="normalised", **protocol))
    assert caught.verdict == "FAIL" and caught.sign == "artefact"
    assert run(name, make("fc-linear", **protocol)).verdict == "OK"


def test_a_solver_stopped_after_three_iterations(make: Make) -> None:
    caught = run("solver", make("deq[max_iter=3,fallback=none]", attacks=short))
    assert caught.fired and caught.sign == "non-convergence"
    assert run("solver", make("deq", attacks=short)).verdict == "OK"


def test_an_adjoint_solved_to_a_tenth(make: Make) -> None:
    """Of the models here, the one whose layer is farthest from a contraction: on `deq` as trained here the
    same tolerance leaves an error of 0.04 %, and there is nothing to find."""
    caught = run("gradient", make("ibp-mondeq[eps=0.05,gradient_tol=0.1]"))
    assert caught.verdict == "WARN" and "central differences" in caught.sentence
    assert caught.evidence["dead gradients"] == 0
    assert run("gradient", make("ibp-mondeq[eps=0.05]")).verdict == "OK"


class Unsound(nn.Module):
    """Claims for a radius what is proven for an eighth of it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))

    def certify(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return cast(Any, self.net).certify(x, y, eps / 8)


class UnsoundDual(Unsound):
    """Claims it with one of two certificates."""

    def certify(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return cast(Any, self.net).certify(x, y, eps)

    @property
    def certificates(self) -> dict[str, Any]:
        return {"IBP": self.certify, "dual": partial(Unsound.certify, self)}


def test_an_unsound_second_certificate(make: Make) -> None:
    caught = run("sandwich", make("ibp-mondeq[eps=0.05]", plant=UnsoundDual, attacks=short))
    assert caught.verdict == "FAIL" and caught.sign == "broken claim" and "certified and broken" in caught.sentence


def test_an_unsound_certificate(make: Make) -> None:
    caught = run("sandwich", make("ibp-mondeq[eps=0.05]", plant=Unsound, attacks=short))
    assert caught.verdict == "FAIL" and caught.sign == "broken claim" and "certified and broken" in caught.sentence
    passed = run("sandwich", make("ibp-mondeq[eps=0.05]", attacks=short))
    assert passed.verdict == "OK" and int(passed.evidence["certified at 4/255"]) > 100, "there is something to break"
    assert int(passed.evidence["certified[dual] at 4/255"]) >= int(passed.evidence["certified at 4/255"])

"""The diagnostics that the nine planted failures do not reach: each fires on what it is for, and not without it."""

from collections.abc import Callable
from fractions import Fraction
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE, diagnose
from bench.models.lyapunov.function import Lyapunov
from bench.settings.config import Config
from tests.bench.diagnostics.cases import RADII, make_case, strong
from tests.bench.diagnostics.test_planted import Wrapped, cut, paper, short
from tests.conftest import Trained

Make = Callable[..., Context]


@pytest.fixture
def make(trained: Trained, digits: Dataset, config: Config) -> Make:
    return lambda name, **changes: make_case(name, trained, digits, config, **changes)


def run(name: str, context: Context) -> DiagnosticResult:
    return diagnose(SUITE[name], context)


def idle(eps: Fraction) -> dict[str, dict[str, Any]]:
    return {"pgd": {"steps": 0, "random_start": False}}


def timid(eps: Fraction) -> dict[str, dict[str, Any]]:
    return {"pgd": {"steps": 1, "alpha": 1 / 255, "random_start": False}}


def lazy(eps: Fraction) -> dict[str, dict[str, Any]]:
    """No steps at the largest radius."""
    return strong(eps) if eps < RADII[-1] else idle(eps)


@pytest.mark.parametrize(
    ("name", "attacks", "verdict", "sign"),
    [
        ("canary", timid, "FAIL", "weak attack"),
        ("large-eps", timid, "FAIL", "weak attack"),
        ("noise", idle, "WARN", "weak attack"),
        ("one-step", idle, "WARN", "weak attack"),
        ("black-box", timid, "FAIL", "weak attack"),
        ("flatness", lazy, "WARN", "weak attack"),
    ],
)
def test_an_attack_that_does_too_little(name: str, attacks: Any, verdict: str, sign: str, make: Make) -> None:
    changes: dict[str, Any] = {"twin": "fc-linear", "n": 150}
    # At the largest radius the strong attack leaves nothing that noise could be tried on.
    changes["radii"] = RADII[:3] if name == "noise" else RADII
    caught = run(name, make("deq", attacks=attacks, **changes))
    assert (caught.verdict, caught.sign) == (verdict, sign)
    assert run(name, make("deq", attacks=short if name != "large-eps" else strong, **changes)).verdict == "OK"


def off_grid_cut(x: Tensor) -> Tensor:
    """A gradient at the clean images, whose pixels are multiples of 1/255, and nowhere else."""
    on_grid = ((x * 255).round() / 255 - x).abs().flatten(1).amax(1) < 1e-6
    return torch.where(on_grid.view(-1, 1, 1, 1), x, x.detach())


def test_one_step_finds_what_many_steps_miss(make: Make) -> None:
    caught = run("one-step", make("fc-linear", plant=lambda net: Wrapped(net, off_grid_cut), n=150))
    assert (caught.verdict, caught.sign) == ("WARN", "weak attack") and "PGD-100" in caught.sentence


class Viewed(nn.Module):
    """A model without gradient that offers a view with one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(cut(x))

    def views(self) -> dict[str, nn.Module]:
        return {"unrolled": self.net}


def test_transfer(make: Make) -> None:
    from_twin = run(
        "transfer", make("deq", plant=lambda net: Wrapped(net, cut), twin="fc-linear", attacks=short, n=150)
    )
    assert from_twin.verdict == "FAIL" and "undefended twin" in from_twin.sentence
    from_view = run("transfer", make("fc-linear", plant=Viewed, attacks=short, n=150))
    assert from_view.verdict == "FAIL" and "'unrolled'" in from_view.sentence
    assert run("transfer", make("deq", twin="fc-linear", attacks=short, n=150)).verdict == "OK"
    assert run("transfer", make("fc-linear", attacks=short, n=150)).verdict == "n/a"


def test_a_flat_curve(make: Make) -> None:
    """Of an attack that gets 24/255 far, whatever the radius."""

    def stuck(eps: Fraction) -> dict[str, dict[str, Any]]:
        return {"pgd": {"steps": 12, "alpha": 2 / 255, "random_start": False}}

    radii = tuple(Fraction(radius, 255) for radius in (24, 32, 48, 64))
    flat = run("flatness", make("fc-linear", attacks=stuck, radii=radii))
    assert flat.verdict == "FAIL" and "flat where it should fall" in flat.sentence
    assert run("flatness", make("fc-linear", attacks=short, radii=radii)).verdict == "OK"


def unprojected(net: nn.Module) -> nn.Module:
    """F handed on in place of F̂, against the gradient of V."""

    def project(self: Lyapunov, field: Tensor, z: Tensor, alpha: float, detached: bool = False) -> Tensor:
        return field + self.value_and_gradient(z)[1]

    for module in net.modules():
        if isinstance(module, Lyapunov):
            module.project = MethodType(project, module)  # type: ignore[method-assign]
    return net


def test_lyapunov(make: Make) -> None:
    caught = run("lyapunov", make("lyadeq", plant=unprojected, attacks=short, n=60))
    assert (caught.verdict, caught.sign) == ("FAIL", "broken claim") and caught.evidence["decay violated"]
    honest = run("lyapunov", make("lyadeq", attacks=short, n=60))
    assert honest.evidence["decay violated"] == 0 and honest.sign is None
    assert honest.verdict == "WARN" and "no equilibrium of F̂" in honest.sentence
    assert run("lyapunov", make("deq", attacks=short, n=60)).verdict == "n/a"


def test_zero_gradient_needs_enough_broken_examples(make: Make) -> None:
    few = run("zero-gradient", make("fc-linear", attacks=paper, space="normalised", n=20))
    assert few.verdict == "n/a" and "at least 30" in few.sentence

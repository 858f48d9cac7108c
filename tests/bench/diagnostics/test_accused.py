"""Faults planted in a trained network, each caught by the diagnostic whose name says what it is; the network without
them passes all of these."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn

from bench.data.load import Dataset
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE, diagnose
from bench.settings.config import Config
from tests.bench.diagnostics import planted
from tests.bench.diagnostics.cases import Plant, make_case
from tests.bench.diagnostics.planted import Around, Before, Counter, Decoy, Half, Lookup
from tests.bench.diagnostics.test_planted import short
from tests.conftest import Trained

N = 100
RADII = (Fraction(8, 255),)
LOOKUPS = {"lookup of the bits": 1e-6, "lookup within 8/255": 8 / 255, "lookup within 77/255": 77 / 255}
TABLE: dict[str, tuple[Plant, str, str]] = {
    "hysteresis": (planted.Hysteresis, "state", "unsteady"),
    "call counter, every seventh": (lambda net: Counter(net, every=7), "state", "unsteady"),
    "call counter, after a hundred": (lambda net: Counter(net, after=100), "state", "unsteady"),
    "call counter, after a thousand": (lambda net: Counter(net, after=1000), "state", "unsteady"),
    "early exit of the batch": (planted.EarlyExit, "gate", "unsteady"),
    "decoy by requires_grad": (lambda net: Decoy(net, lambda x: x.requires_grad), "gate", "unsteady"),
    "decoy by grad mode": (lambda net: Decoy(net, lambda _: torch.is_grad_enabled()), "gate", "unsteady"),
    "decoy by batch size": (lambda net: Decoy(net, lambda x: len(x) == 1), "gate", "unsteady"),
    "hash-seeded noise": (planted.HashNoise, "continuity", "masking"),
    "float16 by autocast": (lambda net: Half(net, torch.float16), "precision", "masking"),
    "bfloat16 by autocast": (lambda net: Half(net, torch.bfloat16), "precision", "masking"),
    "float16 of the image": (planted.HalfInput, "precision", "masking"),
    "ripple": (lambda net: Before(net, planted.ripple), "smoothness", "masking"),
    "steep tanh": (lambda net: Before(net, planted.steep), "smoothness", "masking"),
    "straight-through estimator": (lambda net: Before(net, planted.straight_through), "gradient", "masking"),
    "inner-loop purification": (lambda net: Before(net, planted.purify), "gradient", "masking"),
    "wrong skip gradient": (planted.WrongSkip, "gradient", "masking"),
}
CATCHERS = ("gradient", "precision", "smoothness", "continuity", "state", "gate", "known-images")


@pytest.fixture
def make(trained: Trained, digits: Dataset, config: Config) -> Callable[[Plant], Context]:
    def context(plant: Plant) -> Context:
        return make_case("fc-linear", trained, digits, config, plant=plant, attacks=short, radii=RADII, n=N)

    return context


def run(name: str, context: Context) -> DiagnosticResult:
    return diagnose(SUITE[name], context)


@pytest.mark.parametrize("fault", TABLE)
def test_a_fault_is_caught_by_its_name(fault: str, make: Callable[[Plant], Context]) -> None:
    plant, name, sign = TABLE[fault]
    context = make(plant)
    if "thousand" in fault:  # that many calls are those of a suite, or of a long attack
        for _ in range(1000):
            context.logits_of_pixels(context.x[:1])
    caught = run(name, context)
    assert caught.verdict == "FAIL" and caught.sign == sign, caught.sentence
    assert "could not be completed" not in caught.sentence


@pytest.mark.parametrize("fault", LOOKUPS)
def test_a_table_of_the_test_images(fault: str, make: Callable[[Plant], Context], digits: Dataset) -> None:
    caught = run("known-images", make(lambda net: Lookup(net, digits, LOOKUPS[fault])))
    assert (caught.verdict, caught.sign) == ("FAIL", "contaminated") and "held-out" in caught.sentence


class QuietLookup(Lookup):
    """Within its reach the label, by logits of the size that the network's own have."""

    sure = 3.0

    def table(self, nearest: torch.Tensor) -> torch.Tensor:
        return super().table(nearest) * self.sure / 10


@pytest.mark.parametrize("reach", [8 / 255, 77 / 255])
def test_a_table_that_is_no_surer_than_the_network(
    reach: float, make: Callable[[Plant], Context], digits: Dataset
) -> None:
    caught = run("known-images", make(lambda net: QuietLookup(net, digits, reach)))
    assert caught.verdict == "FAIL", caught.sentence


@pytest.mark.parametrize("name", CATCHERS)
def test_the_network_itself_passes(name: str, make: Callable[[Plant], Context]) -> None:
    assert run(name, make(lambda net: net)).verdict == "OK"


@pytest.mark.parametrize("gradient", ["one-step"])
def test_another_gradient_than_the_derivative(gradient: str, trained: Trained, digits: Dataset, config: Config) -> None:
    """Its signs are nearly those of the derivative on a contraction, its values are not."""
    name = f"deq[gradient={gradient}]"
    context = make_case(name, trained, digits, config, attacks=short, radii=RADII, n=N)
    assert run("gradient", context).fired


def test_a_model_with_one_gradient_is_not_compared_with_itself(make: Callable[[Plant], Context]) -> None:
    context = make(lambda net: net)
    assert str(run("gradient", context).evidence["agreement of signs"]).startswith("n/a")
    assert float(run("precision", context).evidence["agreement of signs with float64"]) > 0.99


class Noisy(Around):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ask(x + 0.05 * torch.randn_like(x))


def test_fresh_noise_is_left_to_determinism(make: Callable[[Plant], Context]) -> None:
    context = make(Noisy)
    assert run("determinism", context).fired
    assert run("state", context).verdict == "OK" and run("gate", context).verdict == "n/a"


def test_hysteresis_is_no_gate(make: Callable[[Plant], Context]) -> None:
    assert run("gate", make(planted.Hysteresis)).verdict == "n/a"


def test_what_is_not_there_is_not_judged(make: Callable[[Plant], Context]) -> None:
    from dataclasses import replace

    context = make(lambda net: net)
    assert run("known-images", replace(context, held_out=None)).verdict == "n/a"

    class Single(nn.Module):
        """Written for float32."""

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = [net]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net[0](x)

    written = make(Single)
    assert run("precision", written).verdict == "n/a"
    assert run("gradient", written).verdict == "OK"

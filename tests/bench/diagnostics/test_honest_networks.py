"""Eight honest networks: neither `check` nor `diagnose` blames one of them, whatever the radius."""

import copy
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn

from bench.checks.suite import check_name
from bench.data.load import Dataset, as_pixels
from bench.diagnostics.overall_reading import read
from bench.diagnostics.suite import SUITE, diagnose
from bench.registry import model
from bench.settings.config import Config
from tests.bench.diagnostics.cases import make_case, strong
from tests.bench.diagnostics.honest import EPOCHS, TorchDEQ, Transformer, fit, max_pool, mlp, tanh_net
from tests.bench.helpers import Inside

Networks = Callable[[str], nn.Module]
AT_8, AT_77 = Fraction(8, 255), Fraction(77, 255)
FITTED: dict[str, tuple[Callable[[], nn.Module], Fraction]] = {
    "max-pool": (max_pool, Fraction(0)),
    "tanh": (tanh_net, Fraction(0)),
    "adversarially trained at 8/255": (mlp, AT_8),
    "adversarially trained at 77/255": (mlp, AT_77),
    "torchdeq": (TorchDEQ, Fraction(0)),
    "transformer": (Transformer, Fraction(0)),
}
EIGHT = [*FITTED, "vgg16", "ibp-mondeq"]
LARGE = {"vgg16"}  # random weights with fitting running statistics: its accuracy is chance, its gradients are honest
QUICK = ("gradient", "precision", "smoothness", "continuity", "state", "gate", "known-images", "determinism", "solver")
BLAMES = {"artefact", "contaminated", "unsteady", "masking", "non-convergence", "broken claim"}


@pytest.fixture(scope="module")
def honest(digits: Dataset, trained: Networks) -> Networks:
    """One of the eight by name, each made once."""
    made: dict[str, nn.Module] = {}

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        if name in FITTED:
            build, eps = FITTED[name]
            epochs = 8 if name == "torchdeq" else EPOCHS
            return fit(build(), as_pixels(digits.x_train), digits.y_train, eps=eps, epochs=epochs)
        if name not in LARGE:
            return trained("ibp-mondeq[eps=0.05]")
        net = model[name].target(digits.images, **model[name].resolve({})).train()
        for _ in range(3):
            net(as_pixels(digits.x_train[:64]))
        return net.eval().requires_grad_(False)

    def get(name: str) -> nn.Module:
        if name not in made:
            made[name] = make(name)
        return copy.deepcopy(made[name])

    return get


def blamed(name: str, honest: Networks, digits: Dataset, config: Config, **how: object) -> list[str]:
    known = "ibp-mondeq[eps=0.05]" if name == "ibp-mondeq" else "fc-linear"
    names = how.pop("names", SUITE)
    context = make_case(known, lambda _: honest(name), digits, config, attacks=strong, **how)  # type: ignore[arg-type]
    results = [diagnose(SUITE[one], context) for one in names]  # type: ignore[attr-defined]
    assert read(results).name in ("no sign of failure", "weak attack")
    return [f"{one.name} {one.verdict}: {one.sentence}" for one in results if one.fired and one.sign in BLAMES]


@pytest.mark.parametrize("name", EIGHT)
def test_check(name: str, honest: Networks, config: Config, inside: Inside) -> None:
    model("honest", pretrained=True)(lambda images: honest(name))
    assert [finding for finding in check_name("honest", config) if not finding.passed] == []


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow) if one in LARGE else one for one in EIGHT])
def test_the_model_alone(name: str, honest: Networks, digits: Dataset, config: Config) -> None:
    n = 20 if name in LARGE else 100
    assert blamed(name, honest, digits, config, names=QUICK, radii=(AT_8,), n=n) == []


@pytest.mark.slow
@pytest.mark.parametrize("radii", [(2, 8), (2, 8, 32, 77)])
@pytest.mark.parametrize("name", EIGHT)
def test_the_whole_suite(name: str, radii: tuple[int, ...], honest: Networks, digits: Dataset, config: Config) -> None:
    n = 10 if name in LARGE else 60
    fractions = tuple(Fraction(radius, 255) for radius in radii)
    assert blamed(name, honest, digits, config, radii=fractions, n=n) == []

"""Masking or a weak attack: what a long search along the own gradient says of what other searches found."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.data.load import Dataset, as_pixels, load
from bench.diagnostics.context import Context
from bench.diagnostics.overall_reading import read
from bench.diagnostics.suite import SUITE, diagnose
from bench.settings.config import Config
from tests.bench.diagnostics.cases import make_case
from tests.bench.diagnostics.honest import fit, mlp
from tests.bench.diagnostics.test_planted import Wrapped, cut, short
from tests.conftest import Trained

SEARCHES = ("black-box", "noise", "one-step", "own-gradient")
WIDE = (Fraction(77, 255),)


@pytest.fixture
def make(trained: Trained, digits: Dataset, config: Config) -> Callable[..., Context]:
    return lambda name, **changes: make_case(name, trained, digits, config, **changes)


def test_a_gradient_that_leads_nowhere_is_masking(make: Callable[..., Context]) -> None:
    context = make("fc-linear", plant=lambda net: Wrapped(net, cut), twin="fc-linear", attacks=short, n=60)
    results = [diagnose(SUITE[name], context) for name in ("transfer", "own-gradient")]
    assert [(result.verdict, result.sign) for result in results] == [("FAIL", "weak attack"), ("FAIL", "masking")]
    assert results[1].evidence["searched"] == 50 and read(results).name == "masking"


def timid(eps: Fraction) -> dict[str, dict[str, Any]]:
    return {"pgd": {"steps": 2, "alpha": 1 / 255, "random_start": False}}


def test_an_attack_of_two_steps_is_weak_and_the_model_is_not_blamed(make: Callable[..., Context]) -> None:
    context = make("fc-linear", attacks=timid, n=60, radii=(Fraction(32, 255),))
    results = [diagnose(SUITE[name], context) for name in SEARCHES]
    assert results[0].verdict == "FAIL" and results[-1].verdict == "OK"
    assert int(results[-1].evidence["searched"]) > 20
    assert read(results).name == "weak attack"


def test_an_adversarially_trained_network_at_77(digits: Dataset, make: Callable[..., Context]) -> None:
    """PGD leaves images that Square breaks, and so does the model's own gradient."""
    torch.manual_seed(0)
    net = fit(mlp(), as_pixels(digits.x_train), digits.y_train, eps=WIDE[0])
    context = make("fc-linear", plant=lambda _: net, attacks=short, radii=WIDE)
    results = {name: diagnose(SUITE[name], context) for name in SEARCHES}
    assert results["black-box"].fired and int(results["own-gradient"].evidence["searched"]) >= 3
    assert results["own-gradient"].verdict == "OK"
    assert read(list(results.values())).name == "weak attack"


def pgd40(eps: Fraction) -> dict[str, dict[str, Any]]:
    return {"pgd": {"steps": 40, "alpha": 0.01}}


@pytest.mark.slow
def test_an_adversarially_trained_network_on_mnist(real_data: Path, config: Config) -> None:
    data = load("mnist", real_data)
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
    fitted = fit(net, as_pixels(data.x_train[:15_000]), data.y_train[:15_000], eps=Fraction(3, 10), epochs=10)
    radii = (Fraction(3, 10),)
    context = make_case("fc-linear", lambda _: fitted, data, config, attacks=pgd40, n=200, radii=radii)
    results = {name: diagnose(SUITE[name], context) for name in ("black-box", "own-gradient")}
    assert results["black-box"].fired
    assert results["own-gradient"].verdict == "OK" and int(results["own-gradient"].evidence["searched"]) > 3
    assert read(list(results.values())).name == "weak attack"

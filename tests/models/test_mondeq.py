"""Monotone DEQs as models: their options, their gradients, and bounds in training."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.errors import BenchError
from bench.models.mondeq import MonDEQ
from bench.registry import model
from tests.models.mondeqs import make_mondeq, plain_images
from tests.parts import batches_seen

FORMS = ["dense", "3", "7"]
EXACT: dict[str, Any] = {"train_tol": 1e-12, "train_gradient_tol": 1e-12, "train_max_iter": 200}


def loss(net: MonDEQ, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return functional.cross_entropy(net.worst_case(x, y, eps)[1], y)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_eval_is_deterministic_and_free_of_batch_mates(form: str) -> None:
    net = make_mondeq(plain_images(1, 8, 8), form=form, width=4)
    x = torch.rand(33, 1, 8, 8)
    assert torch.equal(net(x), net(x))
    for module, tolerance in ((net, 1e-4), (net.double(), 1e-10)):
        x = x.to(next(module.parameters()).dtype)
        together = module(x)
        for size in (1, 7):
            assert float((torch.cat([module(part) for part in x.split(size)]) - together).abs().max()) <= tolerance
        with torch.enable_grad():
            assert float((module(x).detach() - together).abs().max()) <= 1e-6


@pytest.mark.parametrize(("form", "gradient"), [*((form, "implicit") for form in FORMS), ("dense", "exact")])
def test_input_gradient_agrees_with_central_differences(form: str, gradient: str) -> None:
    net = make_mondeq(
        plain_images(1, 8, 8), form=form, width=4, gradient=gradient, tol=1e-12, gradient_tol=1e-12, max_iter=200
    ).double()
    x, y = torch.rand(4, 1, 8, 8, dtype=torch.double, requires_grad=True), torch.arange(4) % 3
    gradient_at = torch.autograd.grad(functional.cross_entropy(net(x), y), x)[0]
    direction = torch.randn_like(x)
    step = 1e-7
    ahead, back = (functional.cross_entropy(net(x + sign * step * direction), y) for sign in (1, -1))
    measured = float((ahead - back).detach() / (2 * step))
    assert float((gradient_at * direction).sum()) == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_training_gradient_of_the_worst_case_agrees_with_central_differences(form: str) -> None:
    """In M, Λ and the injection at once, through batch statistics and both equilibria."""
    net = make_mondeq(plain_images(1, 8, 8), form=form, width=3, rescale=True, **EXACT).double().train()
    x, y = torch.rand(5, 1, 8, 8, dtype=torch.double), torch.arange(5) % 3
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(net, x, y, 0.01), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    step, values = 1e-7, []
    with torch.no_grad():
        for move in (step, -2 * step):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(move * direction)
            values.append(float(loss(net, x, y, 0.01)))
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_at_radius_zero_the_worst_case_is_the_clean_one(form: str, training: bool) -> None:
    net = make_mondeq(plain_images(2, 8, 8), form=form, width=3, **EXACT).double().train(training)
    net.body.settings[False] = net.body.settings[True]
    x, y = torch.rand(6, 2, 8, 8, dtype=torch.double), torch.arange(6) % 3
    counters = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [batches_seen(module) for module in counters]
    logits, worst = net.worst_case(x, y, 0.0)
    assert [batches_seen(module) - old for module, old in zip(counters, before, strict=True)] == [int(training)] * len(
        counters
    )
    torch.testing.assert_close(worst, logits - logits.gather(1, y[:, None]), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(logits, net(x))
    assert bool((net.worst_case(x, y, 0.02)[1] >= worst - 1e-9).all())


@pytest.mark.parametrize(("form", "expected"), [("dense", 9), ("3", 9 * 2 * 2), ("7", 8 * 9)])
def test_forms_end_in_the_features_they_promise(form: str, expected: int) -> None:
    net = make_mondeq(plain_images(3, 8, 10), form=form, width=9)
    assert net.body.head.in_features == expected
    figures = net.diagnostics(torch.rand(2, 3, 8, 10))
    assert figures["residual"].shape == figures["iterations"].shape == (2,)
    assert float(figures["residual"].max()) < 1e-6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"form": "3", "gradient": "exact"}, "dense"),
        ({"form": "7", "solver": "newton"}, "dense"),
        ({"m": "1"}, "m must lie"),
        ({"eps": "0"}, "eps must lie"),
        ({"width": "-1"}, "width"),
        ({"form": "5"}, "form"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str], reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        model["ibp-mondeq"].resolve(options)

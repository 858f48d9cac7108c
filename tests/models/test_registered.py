"""What holds for every registered model."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset
from bench.models.images import Images
from bench.registry import model
from tests.conftest import Trained
from tests.parts import submodule

NAMES = [entry.name for entry in model]
# 36 million parameters in float64: a minute or more on one core.
NAMES_WRN_SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "wrn-28-10" else name for name in NAMES]
BATCHES = (1, 7, 64, 256)


LARGE = {"resnet56", "vgg16", "wrn-28-10"}  # too slow to train here: random weights, fitting running statistics


def ready(name: str, trained: Trained, digits: Dataset) -> nn.Module:
    if name not in LARGE:
        return trained(name)
    torch.manual_seed(0)
    net = model[name].target(digits.images, **model[name].resolve({})).train()
    for _ in range(3):
        net(torch.rand(8, *digits.images.shape))
    return net.eval()


@torch.no_grad()
def spread(net: nn.Module, x: Tensor) -> float:
    """The largest change of a logit over batch sizes."""
    reference = torch.cat([net(part) for part in x.split(max(BATCHES))])
    results = [torch.cat([net(part) for part in x[: max(64, 2 * n)].split(n)]) for n in BATCHES]
    return max(float((result - reference[: len(result)]).abs().max()) for result in results)


@pytest.mark.parametrize("name", NAMES_WRN_SLOW)
def test_logits_do_not_depend_on_batch_mates(
    name: str, trained: Trained, digits: Dataset, images: tuple[Tensor, Tensor]
) -> None:
    net, x = ready(name, trained, digits), images[0]
    x = x[: max(BATCHES)] if name in LARGE else x
    assert len(x) >= max(BATCHES)
    scale = (
        float(net(x).detach().abs().max().clamp_min(1)) if name in LARGE else 1.0
    )  # logits of random weights are large
    assert spread(net, x) <= 1e-4 * scale
    assert spread(copy.deepcopy(net).double(), x.double()) <= 1e-10 * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_builds_for_every_image_size(name: str, shape: tuple[int, int, int]) -> None:
    channels = shape[0]
    statistics = (0.5,) * channels, (0.25,) * channels
    for classes in (10, 100):
        net = model[name].target(Images(shape, classes, *statistics), **model[name].resolve({})).eval()
        assert net(torch.rand(2, *shape)).shape == (2, classes)


def test_undefended_twin_is_the_same_extractor(digits: Dataset) -> None:
    twin = model["fc-linear"].target(digits.images)
    deq = model["deq"].target(digits.images, **model["deq"].resolve({}))
    shapes = [tuple(p.shape) for p in twin.body[0].parameters()]
    assert shapes == [tuple(p.shape) for p in deq.body.extractor.parameters()]


def test_orthogonal_layer_is_orthogonal(trained: Trained) -> None:
    for name in ("lyadeq", "deq-orth"):
        weight = submodule(trained(name), "body.orthogonal", nn.Linear).weight
        torch.testing.assert_close(weight.T @ weight, torch.eye(64), rtol=0, atol=1e-5)
    weight = submodule(trained("lyadeq[orthogonality=classifier]"), "body.classifier", nn.Linear).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(10), rtol=0, atol=1e-5)


def test_resnet20_has_its_published_size() -> None:
    images = Images((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3)
    count = sum(p.numel() for p in model["resnet20"].target(images).parameters())
    assert round(count / 1e6, 2) == 0.27  # He et al. 2016, Table 6


def test_diagnostics_are_per_image(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    figures = trained("lyadeq").diagnostics(images[0][:9])
    assert figures["residual"].shape == figures["iterations"].shape == (9,)
    assert float(figures["residual"].max()) < 1e-6
    assert trained("fc-linear").diagnostics(images[0][:9]) == {}

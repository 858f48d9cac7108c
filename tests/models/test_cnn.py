"""The CNN baselines: published sizes, and the model contract at every image size they are for."""

import pytest
import torch
from torch import nn

from bench.checks import models as points
from bench.models.images import Images
from bench.models.wide_resnet import WideResNetFeatures, wide_resnet
from bench.registry import model

CIFAR = Images((3, 32, 32), 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
MNIST = Images((1, 28, 28), 10, (0.13,), (0.31,))
DIGITS = Images((1, 8, 8), 10, (0.3,), (0.38,))


def make(name: str, images: Images = CIFAR, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return model[name].target(images, **options).eval()


def trained_a_little(net: nn.Module, images: Images) -> nn.Module:
    """With running statistics that fit, so that logits are of ordinary size."""
    net.train()
    for _ in range(20):
        net(torch.rand(32, *images.shape))
    return net.eval()


@pytest.mark.parametrize(
    ("name", "options", "classes", "parameters"),
    [
        ("resnet20", {}, 10, 269_722),
        ("resnet56", {}, 10, 853_018),
        ("resnet56", {"shortcut": "conv"}, 10, 855_770),
        ("vgg16", {}, 10, 14_728_266),
        ("wrn-28-10", {}, 10, 36_479_194),
        ("wrn-28-10", {}, 100, 36_536_884),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, options: dict, classes: int, parameters: int) -> None:
    images = Images(CIFAR.shape, classes, CIFAR.mean, CIFAR.std)
    with torch.device("meta"):
        net = model[name].target(images, **options)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet56", "vgg16", "wrn-28-10"])
@pytest.mark.parametrize("images", [CIFAR, MNIST, DIGITS], ids=["32x32", "28x28", "8x8"])
def test_every_baseline_takes_every_image_size(name: str, images: Images) -> None:
    assert make(name, images)(torch.rand(2, *images.shape)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet56", "vgg16", "small-wrn"])
def test_the_contract_of_a_model_holds(name: str) -> None:
    torch.manual_seed(1)
    images = MNIST if name == "small-wrn" else DIGITS
    net = wide_resnet(images, depth=10, width=2).eval() if name == "small-wrn" else make(name, images)
    trained_a_little(net, images)
    x, y = torch.rand(12, *images.shape), torch.arange(12) % 10
    assert points._shape(net, x, 10) is None
    assert points._twice(net, x) is None
    assert points._batch_mates(net, x) is None
    assert points._state(net, x) is None
    assert points._gradient(net, x, y) is None
    assert points._differences(net, x, y) is None


@pytest.mark.parametrize("name", ["resnet56", "vgg16", "wrn-28-10"])
def test_convolutions_run_channels_last(name: str) -> None:
    net, seen = make(name, DIGITS), []
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 1:
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.rand(3, *DIGITS.shape))
    # At 1×1 pixels every layout is channels-last and torch reports either.
    large = [x for x in seen if x.shape[-1] > 1]
    assert large
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in large)


def test_a_wide_resnet_has_the_depth_of_its_name() -> None:
    with torch.device("meta"):
        features = WideResNetFeatures(3, depth=28, width=10)
    convolutions = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 3 == 28  # the name counts the three shortcuts, and not the classifier
    assert convolutions[-1].out_channels == 640
    with pytest.raises(ValueError, match="6n"):
        WideResNetFeatures(3, depth=27, width=1)


def test_pad_shortcuts_hold_no_parameters_and_pass_the_image_on() -> None:
    block = make("resnet20").body[0].blocks[3]
    x = torch.rand(2, 16, 8, 8)
    y = block.shortcut(x)
    assert not list(block.shortcut.parameters())
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert float(y[:, :8].abs().max()) == float(y[:, 24:].abs().max()) == 0

"""The hand-written gradient of folded residual blocks: autograd's bits, and autograd where it does not hold."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from bench.models import resnet
from bench.models.inference.fast_residual import Block, chain
from bench.models.inference.folding import folded
from bench.models.resnet import BasicBlock, ResNetFeatures, Shortcut
from tests.parts import submodule


def network(depth: int = 8, shortcut: Shortcut = "pad") -> ResNetFeatures:
    """With running statistics and weights of no special size."""
    torch.manual_seed(depth)
    net = ResNetFeatures(3, depth, shortcut)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean = torch.randn(module.num_features) * 0.3
            module.running_var = torch.rand(module.num_features) + 0.5
    return net.eval()


def images(count: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


@pytest.fixture
def chained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks each call of `chain` had."""
    calls = list[int]()

    def counted(blocks: Sequence[Block], x: Tensor) -> Tensor:
        calls.append(len(blocks))
        return chain(blocks, x)

    monkeypatch.setattr(resnet, "chain", counted)
    return calls


def gradient(net: nn.Module, x: Tensor, weights: Tensor | None = None) -> Tensor:
    x = x.clone().requires_grad_()
    out = net(x)
    return torch.autograd.grad(out, x, torch.ones_like(out) if weights is None else weights)[0]


def by_autograd(net: ResNetFeatures, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    state = x.contiguous(memory_format=torch.channels_last)
    out = net.blocks(torch.relu_(net.bn(net.conv(state)))).mean((2, 3))
    return torch.autograd.grad(out, x, torch.ones_like(out))[0]


@pytest.mark.parametrize(("depth", "side"), [(8, 16), (8, 13), (14, 8), (20, 32)])
def test_the_bits_are_autograds(depth: int, side: int, chained: list[int]) -> None:
    net = folded(network(depth))
    assert isinstance(net, ResNetFeatures)
    x = images(side=side)
    assert torch.equal(gradient(net, x), by_autograd(net, x))
    assert chained == [len(net.blocks)]


def test_float64_against_central_differences(chained: list[int]) -> None:
    net, x = folded(network()).double(), images(1, 8).double()
    direction, h = torch.randn_like(x), 1e-6
    with torch.no_grad():
        slope = (net(x + h * direction).sum() - net(x - h * direction).sum()) / (2 * h)
    torch.testing.assert_close((gradient(net, x) * direction).sum(), slope, rtol=1e-6, atol=1e-8)
    assert chained


def test_what_comes_in_is_left_alone_and_backward_can_be_asked_again() -> None:
    net, x = folded(network()), images().requires_grad_()
    before = x.detach().clone()
    out = net(x)
    weights = torch.randn_like(out)
    given, value = weights.clone(), out.detach().clone()
    first = torch.autograd.grad(out, x, weights, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(out, x, weights)[0]
    for now, then in ((weights, given), (out, value), (x, before), (first, kept), (second, kept)):
        assert torch.equal(now, then)


def test_it_has_no_second_derivative() -> None:
    x = images().requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(folded(network())(x).square().sum(), x, create_graph=True)


def hooked(net: ResNetFeatures) -> None:
    submodule(net, "blocks.1.conv1", nn.Conv2d).register_forward_hook(lambda *_: None)


def hooked_backward(net: ResNetFeatures) -> None:
    submodule(net, "blocks.1.shortcut", nn.Module).register_full_backward_hook(lambda *_: None)


def trainable(net: ResNetFeatures) -> None:
    submodule(net, "blocks.0.conv2", nn.Conv2d).weight.requires_grad_()


def other_block(net: ResNetFeatures) -> None:
    class Scaled(BasicBlock):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    scaled = Scaled(16, 16, 1, "pad").eval()
    scaled.fold()
    net.blocks[0] = scaled
    net.requires_grad_(False)


def own_forward(net: ResNetFeatures) -> None:
    block = net.blocks[2]
    usual = block.forward
    block.forward = lambda x: usual(x) * 2


def other_norm(net: ResNetFeatures) -> None:
    net.blocks[0].bn1 = nn.BatchNorm2d(16).eval().requires_grad_(False)


def other_convolution(net: ResNetFeatures) -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular").requires_grad_(False)
    net.blocks[0].conv1 = conv


def named_padding(net: ResNetFeatures) -> None:
    net.blocks[0].conv1 = nn.Conv2d(16, 16, 3, padding="same").requires_grad_(False)


@pytest.mark.parametrize(
    "edit", [hooked, hooked_backward, trainable, other_block, own_forward, other_norm, other_convolution, named_padding]
)
def test_blocks_that_are_not_plain_are_left_to_autograd(
    edit: Callable[[ResNetFeatures], None], chained: list[int]
) -> None:
    net = folded(network())
    assert isinstance(net, ResNetFeatures)
    edit(net)
    assert torch.equal(gradient(net, images()), by_autograd(net, images()))
    assert not chained


@pytest.mark.parametrize("net", [network(), folded(network(shortcut="conv"))], ids=["not folded", "conv shortcut"])
def test_networks_with_more_than_plain_blocks_are_left_to_autograd(net: nn.Module, chained: list[int]) -> None:
    assert gradient(net, images()).abs().sum() > 0
    assert not chained


@pytest.mark.parametrize("name", ["conv1", "conv2"])
def test_weights_changed_before_backward_are_refused(name: str, chained: list[int]) -> None:
    net, x = folded(network()), images().requires_grad_()
    assert isinstance(net, ResNetFeatures)
    out = net(x)
    getattr(net.blocks[1], name).weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(out.sum(), x)
    assert chained

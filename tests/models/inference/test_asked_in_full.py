"""What computes every pixel: networks that see the window elsewhere or do more than their layers, and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bench.models.inference import local_recompute as locality
from bench.models.inference.folding import folded
from bench.models.inference.local_recompute import LocalRecompute
from bench.models.resnet import ResNetFeatures
from tests.models.inference.windows import Around, N, changed, features_of, images, network, stem_pixels

pytestmark = pytest.mark.usefixtures("without_gradients")


def inference(net: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(x).clone()


DEFENCES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "mirrored": lambda net, x: net(x.flip(2)),
    "twice": lambda net, x: net(x) + net(x.flip(3)),
    "the same twice": lambda net, x: net(x) + net(x),
    "repeated": lambda net, x: net(x.repeat(2, 1, 1, 1))[: len(x)],
    "cropped": lambda net, x: net(x[:, :, 2:30, 2:30]),
    "cropped at the end": lambda net, x: net(x[:, :, :30, :30]),
    "inference mode": inference,
}


def replace_conv(net: ResNetFeatures) -> None:
    net.conv = nn.Sequential(nn.AvgPool2d(3, 1, 1), net.conv)  # type: ignore[assignment]


def larger_kernel(net: ResNetFeatures) -> None:
    net.conv = nn.Conv2d(3, 16, 5, padding=2).double().eval().requires_grad_(False)


def replace_block(net: ResNetFeatures) -> None:
    net.blocks[0] = nn.Sequential(net.blocks[0], nn.Tanh())


def own_forward(net: ResNetFeatures) -> None:
    usual = net.blocks[1].forward
    net.blocks[1].forward = lambda x: usual(x).clamp(max=0.5)


def quantised(net: ResNetFeatures) -> None:
    """Too little to show in one comparison."""
    net.blocks[0].register_forward_hook(lambda module, inputs, output: (output * 256).round() / 256)


def on_all_blocks(net: ResNetFeatures) -> None:
    net.blocks.register_forward_hook(lambda module, inputs, output: output.tanh())


def statistics_of_the_batch(net: ResNetFeatures) -> None:
    net.bn = nn.BatchNorm2d(16, track_running_stats=False).double()


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, x.shape[3], dtype=x.dtype)


def masked_norm(net: ResNetFeatures) -> None:
    net.bn = nn.Sequential(net.bn, Mask())  # type: ignore[assignment]


EDITS = [
    masked_norm,
    replace_conv,
    larger_kernel,
    replace_block,
    own_forward,
    quantised,
    on_all_blocks,
    statistics_of_the_batch,
    lambda net: weight_norm(net.conv),
]


def check_full(net: nn.Module, x: Tensor, rounds: int = 4) -> None:
    """Logits are the model's, and no convolution is asked for less than what it is asked for in a plain forward."""
    nearby, rows = LocalRecompute(net, x, 5), torch.arange(len(x))
    for seed in range(rounds):
        top, left = torch.randint(0, 27, (2, len(x)), generator=torch.Generator().manual_seed(seed))
        asked = changed(x, rows, top, left, 5, seed)
        with stem_pixels() as usual:
            own = net(asked)
        with stem_pixels() as pixels:
            logits = nearby.logits_of(rows, asked, top, left, 5)
        torch.testing.assert_close(logits, own, rtol=1e-12, atol=1e-12)
        assert min(pixels) >= min(usual) and len(pixels) % len(usual) == 0
        nearby.accept(rows < 2)
        x = torch.where((rows < 2)[:, None, None, None], asked, x)


@pytest.mark.parametrize("name", DEFENCES)
def test_networks_that_do_not_see_the_window_there_are_asked_in_full(name: str) -> None:
    check_full(Around(folded(network()), DEFENCES[name]), images())


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_networks_that_do_more_than_their_layers_are_asked_in_full(edit: Callable[[ResNetFeatures], object]) -> None:
    net = folded(network())
    edit(features_of(net))
    check_full(net, images())


def test_a_hook_that_comes_later_counts() -> None:
    net, x, rows, corner = folded(network()), images(), torch.arange(N), torch.full((N,), 10)
    nearby, asked = LocalRecompute(net, x, 5), changed(x, rows, corner, corner, 5)
    nearby.logits_of(rows, asked, corner, corner, 5)
    before = nearby.logits_of(rows, asked, corner, corner, 5)
    features_of(net).blocks[0].register_forward_hook(lambda module, inputs, output: output.tanh())
    after = nearby.logits_of(rows, asked, corner, corner, 5)
    assert torch.equal(after, net(asked)) and not torch.allclose(after, before)


def test_noise_is_drawn_anew_for_every_pixel() -> None:
    def noisy(net: nn.Module, x: Tensor) -> Tensor:
        return net(x + 1e-3 * torch.rand_like(x))

    net, x, rows, corner = Around(folded(network()), noisy), images(), torch.arange(N), torch.full((N,), 10)
    nearby, asked = LocalRecompute(net, x, 5), changed(x, rows, corner, corner, 5)
    with stem_pixels() as pixels:
        first, second = (nearby.logits_of(rows, asked, corner, corner, 5) for _ in range(2))
    assert not torch.equal(first, second) and set(pixels) == {N * 32**2}


def test_gradients_are_of_the_whole_network() -> None:
    net, x, rows, corner = folded(network()), images(), torch.arange(N), torch.full((N,), 10)
    nearby, asked = LocalRecompute(net, x, 5), changed(x, rows, corner, corner, 5).requires_grad_()
    nearby.logits_of(rows, asked, corner, corner, 5)
    with torch.enable_grad():
        usual = torch.autograd.grad(net(asked).sum(), asked)[0]
        found = torch.autograd.grad(nearby.logits_of(rows, asked, corner, corner, 5).sum(), asked)[0]
    assert torch.equal(found, usual)


def test_images_too_small_or_too_many_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows, corner = folded(network()), torch.arange(N), torch.full((N,), 3)

    def per_image(x: Tensor) -> float:
        nearby = LocalRecompute(net, x, 5)
        nearby.logits_of(rows, x, corner, corner, 5)
        with stem_pixels() as pixels:
            nearby.logits_of(rows, x, corner, corner, 5)
        return sum(pixels) / N

    assert per_image(images()) == 7**2
    assert per_image(images(height=24, width=24)) == 24**2
    monkeypatch.setattr(locality, "MOST", 1000)
    assert per_image(images()) == 32**2

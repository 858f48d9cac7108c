"""Logits of images that differ in a window are the model's own, whatever was asked, taken and forgotten before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from bench.attacks.core.draws import Draws
from bench.attacks.square import square
from bench.models.images import Images
from bench.models.inference import local_recompute as locality
from bench.models.inference.folding import folded
from bench.models.inference.local_recompute import LocalRecompute
from bench.models.resnet import ResNetFeatures
from bench.registry import model
from tests.models.inference.test_folding import stirred

COLOUR = Images((3, 32, 32), 10, (0.3, 0.4, 0.5), (0.2, 0.3, 0.25))
N = 5


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def network(name: str = "resnet20") -> nn.Module:
    torch.manual_seed(0)
    return stirred(model[name].target(COLOUR))


def features_of(net: nn.Module) -> ResNetFeatures:
    return next(m for m in net.modules() if isinstance(m, ResNetFeatures))


def images(n: int = N, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def changed(x: Tensor, rows: Tensor, top: Tensor, left: Tensor, side: int, seed: int = 0) -> Tensor:
    """x[rows] with other pixels in the windows."""
    other, generator = x[rows].clone(), torch.Generator().manual_seed(seed)
    for image, a, b in zip(other, top.tolist(), left.tolist(), strict=True):
        image[:, a : a + side, b : b + side] = torch.rand(3, side, side, generator=generator, dtype=x.dtype)
    return other


@contextmanager
def stem_pixels() -> Iterator[list[int]]:
    """Collects how many pixels the convolutions of colour images are asked for, call by call."""
    asked, real = list[int](), functional.conv2d

    def conv2d(x: Tensor, weight: Tensor, *rest: object, **more: object) -> Tensor:
        y = real(x, weight, *rest, **more)
        if weight.shape[1] == 3:
            asked.append(y[:, 0].numel())
        return y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "conv2d", conv2d)
        yield asked


@pytest.mark.parametrize("size", [(32, 32), (28, 40), (40, 28)])
@pytest.mark.parametrize("name", ["resnet20", "resnet56", "lyadeq"])
def test_windows_everywhere(name: str, size: tuple[int, int]) -> None:
    net, x, side = folded(network(name)), images(9, *size), 4
    nearby = LocalRecompute(net, x, side)
    # Every corner, every edge and the middle.
    corners = [(a, b) for a in (0, 13, size[0] - side) for b in (0, 14, size[1] - side)]
    top, left = (torch.tensor(t) for t in zip(*corners, strict=True))
    rows = torch.arange(9)
    asked = changed(x, rows, top, left, side)
    nearby.logits_of(rows, asked, top, left, side)  # is checked against the model
    with stem_pixels() as pixels:
        found = nearby.logits_of(rows, asked, top, left, side)
    assert pixels == [9 * (side + 2) ** 2]
    torch.testing.assert_close(found, net(asked), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, net(x), rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([1, 3, 5])), min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_order_of_asking_taking_and_forgetting(steps: list[tuple[int, int]]) -> None:
    net, x = folded(network()), images()
    nearby = LocalRecompute(net, x, 5)
    for number, (seed, side) in enumerate(steps):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(x), generator=generator)[: 1 + seed % len(x)]
        top, left = torch.randint(0, 33 - side, (2, len(rows)), generator=generator)
        asked = changed(x, rows, top, left, side, seed)
        with stem_pixels() as pixels:
            logits = nearby.logits_of(rows, asked, top, left, side)
        assert pixels == [len(rows) * (side + 2) ** 2] + [len(rows) * 32**2] * (number == 0)
        torch.testing.assert_close(logits, net(asked), rtol=1e-9, atol=1e-9)
        taken = torch.rand(len(rows), generator=generator) < 0.5
        nearby.accept(taken)
        x[rows[taken]] = asked[taken]
        if len(x) > 2 and seed % 2:
            kept = torch.ones(len(x), dtype=torch.bool)
            kept[seed % len(x)] = False
            nearby.keep_rows(kept)
            x = x[kept]


class Around(nn.Module):
    """A defence around the network."""

    def __init__(self, net: nn.Module, act: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.act = net, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.net, x)


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


def test_a_model_that_raises_leaves_nothing_behind() -> None:
    def at_times(net: nn.Module, x: Tensor) -> Tensor:
        logits = net(x)
        if raising:
            raise RuntimeError("no")
        return logits

    raising, rows, corner = False, torch.arange(N), torch.full((N,), 10)
    net, x = Around(folded(network()), at_times), images()
    nearby, asked = LocalRecompute(net, x, 5), changed(x, rows, corner, corner, 5)
    net(x)  # is no business of the search
    nearby.logits_of(rows, asked, corner, corner, 5)
    with stem_pixels() as pixels:
        nearby.logits_of(rows, asked, corner, corner, 5)
    assert pixels == [N * 7**2]
    raising = True
    with pytest.raises(RuntimeError, match="no"):
        nearby.logits_of(rows, asked, corner, corner, 5)
    raising = False
    with stem_pixels() as pixels:
        own = net(x)
    assert pixels == [N * 32**2], "asked outside the search, the network computes everything"
    assert not torch.equal(own, nearby.logits_of(rows, asked, corner, corner, 5))


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


def test_square_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four images two fall on the way."""
    monkeypatch.setattr("bench.attacks.square._HALVINGS", (2, 3, 4, 20, 60))
    net, x = folded(network()), images(4)
    y, draws = net(x).argmax(1), Draws(0, "t", range(4))
    eps = torch.tensor([0.001, 0.2, 0.001, 0.2], dtype=torch.float64)
    with stem_pixels() as near:
        found = square(net, x, y, eps, draws, queries=100)
    monkeypatch.setattr(locality, "MOST", 0)
    with stem_pixels() as full:
        torch.testing.assert_close(square(net, x, y, eps, draws, queries=100), found, rtol=0, atol=0)
    assert 1 <= int((net(found).argmax(1) != y).sum()) <= 3
    assert sum(near) < 0.4 * sum(full)

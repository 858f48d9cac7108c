"""Logits of images that differ in a window are the model's own, whatever was asked, taken and forgotten before."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.square import square
from bench.registry import model
from models import locality
from models.folding import folded
from models.images import Images
from models.locality import Nearby
from models.resnet import ResNetFeatures
from tests.models.test_folding import stirred

COLOUR = Images((3, 32, 32), 10, (0.3, 0.4, 0.5), (0.2, 0.3, 0.25))
N = 5


def network(name: str = "resnet20") -> nn.Module:
    torch.manual_seed(0)
    return stirred(model[name].target(COLOUR))


def images(n: int = N) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def changed(x: Tensor, rows: Tensor, top: Tensor, left: Tensor, side: int, seed: int = 0) -> Tensor:
    """x[rows] with other pixels in the windows."""
    other, generator = x[rows].clone(), torch.Generator().manual_seed(seed)
    for image, a, b in zip(other, top.tolist(), left.tolist(), strict=True):
        image[:, a : a + side, b : b + side] = torch.rand(3, side, side, generator=generator, dtype=x.dtype)
    return other


class Work(nn.Module):
    """Counts the pixels that a network's first convolution is asked for, called or taken apart."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.pixels = conv, 0

    def forward(self, x: Tensor) -> Tensor:
        self.pixels += x[:, 0].numel()
        return x


def watch(net: nn.Module) -> Work:
    """Counts at the norm behind the stem of a folded network, which is the identity there."""
    features = next(m for m in net.modules() if isinstance(m, ResNetFeatures))
    features.bn = Work(features.conv)
    return features.bn


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "lyadeq"])
def test_windows_everywhere(name: str) -> None:
    net, x, side = folded(network(name)), images(9), 4
    work = watch(net)
    nearby = Nearby(net, x, side)
    # Every corner, every edge and the middle.
    top, left = (torch.tensor(t) for t in zip(*[(a, b) for a in (0, 13, 28) for b in (0, 14, 28)], strict=True))
    rows = torch.arange(9)
    asked = changed(x, rows, top, left, side)
    nearby.ask(rows, asked, top, left, side)  # is checked against the model
    work.pixels = 0
    found = nearby.ask(rows, asked, top, left, side)
    assert work.pixels == 9 * (side + 2) ** 2
    torch.testing.assert_close(found, net(asked), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, net(x), rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([1, 3, 5])), min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_order_of_asking_taking_and_forgetting(steps: list[tuple[int, int]]) -> None:
    net, x = folded(network()), images()
    work, nearby = watch(net), Nearby(net, x, 5)
    for seed, side in steps:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(x), generator=generator)[: 1 + seed % len(x)]
        top, left = torch.randint(0, 33 - side, (2, len(rows)), generator=generator)
        asked = changed(x, rows, top, left, side, seed)
        work.pixels = 0
        logits = nearby.ask(rows, asked, top, left, side)
        assert work.pixels < 2000 * len(rows)
        torch.testing.assert_close(logits, net(asked), rtol=1e-9, atol=1e-9)
        taken = torch.rand(len(rows), generator=generator) < 0.5
        nearby.take(taken)
        x[rows[taken]] = asked[taken]
        if len(x) > 2 and seed % 2:
            kept = torch.ones(len(x), dtype=torch.bool)
            kept[seed % len(x)] = False
            nearby.keep(kept)
            x = x[kept]


class Mirrored(nn.Module):
    """A defence that moves the window: the network sees the image upside down."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flip(2))


class Noisy(Mirrored):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 1e-3 * torch.rand_like(x))


class Twice(Mirrored):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.net(x.flip(3))


class Repeated(Mirrored):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.repeat(2, 1, 1, 1))[: len(x)]


def hooked(net: nn.Module) -> nn.Module:
    """Its stem does more than its weights say."""
    features = next(m for m in net.modules() if isinstance(m, ResNetFeatures))
    features.conv.register_forward_hook(lambda module, inputs, output: output.tanh())
    return net


@pytest.mark.parametrize("wrap", [Mirrored, Twice, Repeated, hooked])
def test_models_that_do_more_are_asked_in_full(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net, x = wrap(folded(network())), images()
    nearby, rows = Nearby(net, x, 5), torch.arange(N)
    for seed in range(4):
        top, left = torch.randint(0, 27, (2, N), generator=torch.Generator().manual_seed(seed))
        asked = changed(x, rows, top, left, 5, seed)
        torch.testing.assert_close(nearby.ask(rows, asked, top, left, 5), net(asked), rtol=1e-9, atol=1e-9)
        nearby.take(torch.arange(N) < 2)
        x[:2] = asked[:2]


def test_noise_is_drawn_anew_for_every_pixel() -> None:
    net, x, rows, corner = Noisy(folded(network())), images(), torch.arange(N), torch.full((N,), 10)
    nearby = Nearby(net, x, 5)
    asked = changed(x, rows, corner, corner, 5)
    first, second = (nearby.ask(rows, asked, corner, corner, 5) for _ in range(2))
    assert not torch.equal(first, second)


def test_images_too_small_or_too_many_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, rows, corner = folded(network()), images(), torch.arange(N), torch.full((N,), 3)
    work = watch(net)

    def pixels(x: Tensor) -> int:
        nearby = Nearby(net, x, 5)
        nearby.ask(rows, x, corner, corner, 5)
        work.pixels = 0
        nearby.ask(rows, x, corner, corner, 5)
        return work.pixels // N

    assert pixels(x) == 7**2
    assert pixels(x[:, :, :16, :16]) == 16**2
    monkeypatch.setattr(locality, "MOST", 1000)
    assert pixels(x) == 32**2


def test_square_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks.square._HALVINGS", (2, 3, 4, 20, 60))
    net, x = folded(network()), images(4)
    y, eps, draws = net(x).argmax(1), torch.full((4,), 0.001, dtype=torch.float64), Draws(0, "t", range(4))
    work = watch(net)
    found = square(net, x, y, eps, draws, queries=100)
    near, work.pixels = work.pixels, 0
    monkeypatch.setattr(locality, "MOST", 0)
    torch.testing.assert_close(square(net, x, y, eps, draws, queries=100), found, rtol=0, atol=0)
    assert near < 0.6 * work.pixels

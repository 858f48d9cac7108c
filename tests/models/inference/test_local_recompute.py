"""Logits of images that differ in a window are the model's own, whatever was asked, taken and forgotten before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.attacks.core.draws import Draws
from bench.attacks.square import square
from bench.models.inference import local_recompute as locality
from bench.models.inference.folding import folded
from bench.models.inference.local_recompute import LocalRecompute
from tests.models.inference.windows import Around, N, changed, images, network, stem_pixels

pytestmark = pytest.mark.usefixtures("without_gradients")


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

"""Square: its schedule against pyautoattack's, its search against one image at a time that asks about everything."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from bench.attacks.core.contract import linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import margin
from bench.attacks.square import _proposals, square, window_sides

N = 12


class Watched(nn.Module):
    """Logits in float64, so that no verdict hangs on a batch's rounding; keeps what it was asked."""

    def __init__(self, channels: int, side: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        size = channels * side * side
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(size, 20), nn.ReLU(), nn.Linear(20, 5)).double()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.net(x.double())


def examples(net: Watched, channels: int, side: int, n: int = N) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, net.net(x.double()).argmax(1)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_schedule_is_pyautoattacks(channels: int, side: int) -> None:
    theirs = SquareAttack(None, eps=0.1, p_init=0.8, resc_schedule=False)
    wanted = []
    for query in range(10_000):
        share = theirs.p_selection(query)
        wanted.append(min(max(round(math.sqrt(share * channels * side**2 / channels)), 1), side))
    assert window_sides(10_000, side, side) == wanted


def one_by_one(net: Watched, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, queries: int) -> Tensor:
    """The search as it is written down: image by image, and every proposal is asked about."""
    channels, _, width = x.shape[1:]
    drawn = draws.unit((channels * width + queries * (2 + channels),), 0)
    stripes = drawn[:, : channels * width].view(-1, channels, 1, width).sign()
    plan = list(_proposals(drawn[:, channels * width :].view(len(x), queries, -1), x.shape))
    ends = []
    for row in range(len(x)):
        radius, image, label = eps[row], x[row], y[row : row + 1]
        best = torch.min(torch.max(image + radius * stripes[row], image - radius), image + radius).clamp(0, 1)
        value = margin(net.net(best[None].double()), label)
        for windows in plan:
            for position in range(windows.top.shape[1]):
                if value > 0:
                    break
                top, left = int(windows.top[row, position]), int(windows.left[row, position])
                new = best.clone()
                sign = torch.where(windows.up[row, position], 1.0, -1.0)[:, None, None]
                part = (slice(None), slice(top, top + windows.side), slice(left, left + windows.side))
                new[part] = (image + radius * sign).clamp(0, 1)[part]
                reached = margin(net.net(new[None].double()), label)
                if reached > value:
                    best, value = new, reached
        ends.append(best)
    return torch.stack(ends)


@pytest.mark.parametrize(("channels", "side"), [(1, 6), (3, 5)])
def test_leaving_out_questions_changes_nothing(channels: int, side: int) -> None:
    net, queries = Watched(channels, side), 700
    x, y = examples(net, channels, side)
    eps, draws = torch.linspace(0.01, 0.15, N), Draws(0, "t", range(N))
    with torch.no_grad():
        expected = one_by_one(net, x, y, eps, draws, queries)
        fallen = net.net(expected.double()).argmax(1) != y
    net.asked.clear()
    found = run_attack(partial(square, queries=queries), net, x, y, eps, draws)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert 2 < int(fallen.sum()) < N - 2
    asked = sum(map(len, net.asked))
    assert N < asked < 0.8 * int((~fallen).sum()) * queries


def test_nothing_is_asked_twice_of_an_unchanged_image() -> None:
    """Of a model that never gives way: every proposal once per size of the window, and none that changes nothing."""

    class Stubborn(Watched):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            return torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)

    net = Stubborn(1, 6)
    x, y = torch.rand(1, 1, 6, 6), torch.zeros(1, dtype=torch.int64)
    square(net, x, y, torch.tensor([0.1]), Draws(0, "t", [0]), queries=3000)
    rows = torch.cat(net.asked).flatten(1)
    assert len(rows.unique(dim=0)) >= 0.8 * len(rows), "windows of two sizes may make the same image"
    most = sum(2 * max(6 - side, 1) ** 2 for side in set(window_sides(3000, 6, 6)))
    assert most / 3 < len(rows) <= 1 + most


def test_an_example_alone_and_in_a_batch() -> None:
    net = Watched(1, 6)
    x, y = examples(net, 1, 6)
    eps, draws = torch.full((N,), 0.08), Draws(0, "t", range(N))
    whole = square(net, x, y, eps, draws, queries=300)
    for row in range(N):
        rows = slice(row, row + 1)
        assert torch.equal(square(net, x[rows], y[rows], eps[rows], draws.of([row]), queries=300)[0], whole[row])


def test_proposals_cover_the_image_and_both_signs() -> None:
    drawn = Draws(0, "t", range(4)).unit((600, 5), 0)
    begin = 0
    for windows in _proposals(drawn, torch.Size((4, 3, 9, 12))):
        assert windows.first == begin
        begin += windows.top.shape[1]
        for corner, length in ((windows.top, 9), (windows.left, 12)):
            assert int(corner.min()) >= 0 and int(corner.max()) <= max(length - windows.side - 1, 0)
            if corner.numel() > 500:
                assert set(corner.unique().tolist()) == set(range(length - windows.side))
        if windows.up.numel() > 500:
            assert 0.4 < float(windows.up.float().mean()) < 0.6
    assert begin == 600


def test_first_image_has_stripes() -> None:
    net = Watched(3, 6)
    x, y = examples(net, 3, 6)
    square(net, x, y, torch.full((N,), 0.1), Draws(0, "t", range(N)), queries=1)
    change = net.asked[0] - x
    inside = (x > 0.1) & (x < 0.9)
    torch.testing.assert_close(change.abs()[inside], torch.full_like(change, 0.1)[inside])
    signs = change.sign()
    assert torch.equal(signs, signs[:, :, :1].expand_as(signs)) and 0.3 < float((signs > 0).float().mean()) < 0.7


@given(seed=st.integers(0, 10**6), low=st.floats(0, 0.05), high=st.floats(0, 1), queries=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_never_leaves_ball_or_range(seed: int, low: float, high: float, queries: int) -> None:
    net = Watched(1, 4, seed)
    x = torch.rand(10, 1, 4, 4).mul(1.4).sub(0.2).clamp(0, 1)
    eps, y = torch.linspace(low, high, 10), torch.randint(0, 5, (10,))
    found = run_attack(partial(square, queries=queries), net, x, y, eps, Draws(seed, "t", range(10)))
    assert bool((linf(x, found) <= eps + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert sum(map(len, net.asked)) <= 10 * (queries + 1)

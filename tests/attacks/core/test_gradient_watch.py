"""Gradients are counted for the image they were taken at, in whatever order an attack asks."""

import pytest
import torch
from torch import Tensor

from bench.attacks.core.draws import Draws
from bench.attacks.core.gradient_watch import FINE, NONE, NOT_FINITE, ZERO, Watch, codes_of, peaks
from bench.attacks.core.sign_ascent import SignAscent, ascend
from bench.attacks.gradient_sign import _ifgsm_ascent, _pgd_ascent

EPS = 0.1


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def points(images: Tensor, rows: list[int], seed: int) -> Tensor:
    noise = torch.rand(len(rows), 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return images[rows] + EPS * (2 * noise - 1)


def test_codes_follow_the_largest_entry() -> None:
    gradient = torch.tensor([[0.0, 0.0], [0.0, -1e-40], [torch.nan, 1.0], [-torch.inf, 0.0]])
    assert codes_of(peaks(gradient)).tolist() == [ZERO, FINE, NOT_FINITE, NOT_FINITE]
    assert codes_of(torch.tensor([-1.0])).tolist() == [NONE]


def test_what_is_worst_of_an_image_stays_and_a_gradient_clears_a_zero(images: Tensor) -> None:
    watch = Watch()
    watch.begin(images, EPS)
    first = torch.ones(6, 1, 4, 4)
    first[1], first[2, 0, 0, 0], first[3] = 0, torch.nan, 0
    order = [4, 2, 0, 3, 1]  # image 5 is never asked about
    watch.saw(points(images, order, 1), first[order])
    assert watch.met.tolist() == [FINE, ZERO, NOT_FINITE, ZERO, FINE, NONE]
    watch.saw(points(images, [3, 1], 2), torch.stack([first[0], first[1]]))
    assert watch.met.tolist() == [FINE, ZERO, NOT_FINITE, FINE, FINE, NONE]
    watch.saw(points(images, [2], 3), first[:1])
    assert watch.met.tolist()[2] == NOT_FINITE


def test_what_was_kept_is_gone_on_from(images: Tensor) -> None:
    watch = Watch()
    watch.begin(images, EPS, torch.tensor([NOT_FINITE, ZERO, NONE, NONE, NONE, NONE], dtype=torch.int8))
    watch.saw(points(images, list(range(6)), 1), torch.ones(6, 1, 4, 4))
    assert watch.met.tolist() == [NOT_FINITE] + 5 * [FINE]


class Steps(torch.nn.Module):
    """Logits whose gradient is 0 at one image, NaN at another once it has moved, and fine elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        flat, sharp = (x[:, :, 0, 0] == 0).float(), (x[:, :, 0, 1] > 0.9).float()
        root = (1 - sharp + sharp * (mean - mean.detach()).square()).sqrt()
        value = (1 - flat) * mean + 0 * root
        return torch.cat([value, -value], 1)


def test_every_lane_knows_its_own(images: Tensor) -> None:
    images[0, 0, 0, 0], images[1, 0, 0, 1] = 0, 0.95
    images[2:, 0, 0, 0], images[2:, 0, 0, 1] = 0.5, 0.2
    images[0, 0, 0, 1], images[1, 0, 0, 0] = 0.2, 0.5
    radius = torch.full((6,), 0.02)
    still: SignAscent = _ifgsm_ascent(steps=0, alpha=0.01)
    ascents = [
        still,
        _ifgsm_ascent(steps=2, alpha=0.01),
        _pgd_ascent(steps=2, alpha=0.01, random_start=True, restart=0),
    ]
    draws = Draws(0, "watch", range(6))
    labels = torch.zeros(6, dtype=torch.int64)
    found = ascend(Steps(), images, labels, [(ascent, radius) for ascent in ascents], draws, rows=100).met
    assert found[0].tolist() == 6 * [NONE]
    assert found[1].tolist() == [ZERO, NOT_FINITE, *4 * [FINE]]
    # A random start leaves the point where the gradient is 0, and none where it is NaN.
    assert found[2][1:].tolist() == [NOT_FINITE, *4 * [FINE]]

"""Gradients against differences where a network has a derivative, and nothing said where it has none."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset
from bench.evaluation.derivatives import JITTER, derivatives, jittered, margin_gradient
from tests.bench.helpers import Inside

PLUGIN = """
from torch import nn
from bench.registry import model

@model("small-pool")
def small_pool(images):
    \"\"\"Two convolutions with max-pooling.\"\"\"
    width = images.shape[1] // 4
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
                         nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * width * width, images.classes))
"""


class Head(nn.Module):
    """A function of images, and two logits: it and 0."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        value = self.function(x)
        return torch.stack([torch.zeros_like(value), value], 1)


def judge(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
    x = torch.rand(40, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = derivatives(Head(function), x, torch.zeros(40, dtype=torch.long))
    return found.errors, found.excluded


def through(x: Tensor) -> Tensor:
    """Rounded to 1/255, its gradient that of the identity."""
    return x + ((x * 255).round() / 255 - x).detach()


def test_closed_forms() -> None:
    for smooth in (lambda x: x.pow(2).flatten(1).sum(1), lambda x: (3 * x).sin().flatten(1).sum(1)):
        errors, excluded = judge(smooth)
        assert excluded == 0 and float(errors.max()) < 1e-4
    halved, _ = judge(lambda x: (x / 2 + (x / 2).detach()).flatten(1).sum(1))
    assert torch.allclose(halved, torch.full_like(halved, 0.5), atol=1e-4)


def test_a_straight_through_estimator_is_no_derivative() -> None:
    errors, excluded = judge(lambda x: through(x).flatten(1).sum(1))
    assert len(errors) > 30 and float(errors.median()) == 1.0
    assert excluded == 40 - len(errors)


def test_on_a_kink_itself_all_steps_agree_on_what_is_no_derivative() -> None:
    """Which is why points are jittered: the two slopes' mean, where autograd says 0."""
    c = torch.rand(40, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    errors, excluded = judge(lambda x: (x - c[: len(x)]).relu().flatten(1).sum(1))
    assert excluded == 0 and float(errors.min()) > 0.01


def test_points_where_no_two_steps_agree_are_excluded_and_counted() -> None:
    errors, excluded = judge(lambda x: x.flatten(1).sum(1) + torch.randn(len(x), dtype=x.dtype))
    assert excluded > 30 and len(errors) == 40 - excluded


def test_jittered_points_are_inside_and_near() -> None:
    x = torch.cat([torch.zeros(5, 1, 8, 8), torch.ones(5, 1, 8, 8)])
    near = jittered(x)
    assert bool((near > 0).any() and (near < 1).any()) and float(near.min()) >= 0 and float(near.max()) <= 1
    assert float((near - x).abs().max()) <= JITTER and len(near[0].unique()) > 60
    assert torch.equal(jittered(x), near)


def test_flat_background_has_no_derivative_and_beside_it_there_is_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)).double().eval()
    x, y = torch.zeros(40, 1, 8, 8, dtype=torch.float64), torch.zeros(40, dtype=torch.long)
    x[:, :, 2:4, 2:4] = 1
    on_grid = derivatives(net, x, y).errors
    beside = derivatives(net, jittered(x), y)
    assert float(on_grid.median()) > 0.05, "the windows tie"
    assert float(beside.errors.max()) < 1e-6 and len(beside.errors) >= 30


def test_no_way_to_the_logits_is_a_zero_gradient() -> None:
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    assert not bool(margin_gradient(Head(lambda x: x.detach().flatten(1).sum(1)), x, y).any())


def flat_data(digits: Dataset, folder: Path, size: int) -> Path:
    """Digits in the middle of a black image, as MNIST has them."""
    arrays = {}
    for part in ("train", "test"):
        images = cast(Tensor, getattr(digits, f"x_{part}")).numpy()
        around = (size - images.shape[-1]) // 2
        arrays[f"x_{part}"] = np.pad(images, ((0, 0), (0, 0), (around, around), (around, around)))
        arrays[f"y_{part}"] = getattr(digits, f"y_{part}").numpy()
    np.savez(folder / "mnist.npz", allow_pickle=False, **arrays)
    return folder


def gradient_line(folder: Path, inside: Inside, *arguments: str, code: int = 0) -> str:
    done = inside(folder, "check", *arguments, "--dataset", "mnist", "--data-dir", str(folder), code=code)
    return next(line for line in done.stdout.splitlines() if "central differences" in line)


def test_check_accepts_max_pooling_on_flat_background(tmp_path: Path, digits: Dataset, inside: Inside) -> None:
    (tmp_path / "pool.py").write_text(PLUGIN)
    flat_data(digits, tmp_path, 16)
    assert gradient_line(tmp_path, inside, "small-pool", "--plugin", "pool.py").startswith("ok")
    assert gradient_line(tmp_path, inside, "deq[gradient=one-step]", code=2).startswith("FAIL")


NOISY = """
import torch
from torch import nn
from bench.registry import model

class Noisy(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, images.classes))

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))

@model("noisy")
def noisy(images):
    return Noisy(images)
"""


def test_check_says_nothing_of_a_derivative_that_is_not_there(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    done = inside(tmp_path, "check", "noisy", "--plugin", "noisy.py", "--dataset", "digits", code=2)
    line = next(line for line in done.stdout.splitlines() if "central differences" in line)
    assert line.startswith("n/a") and "no two steps" in line


@pytest.mark.slow
def test_check_accepts_vgg16_on_flat_background(tmp_path: Path, digits: Dataset, inside: Inside) -> None:
    flat_data(digits, tmp_path, 28)
    assert gradient_line(tmp_path, inside, "vgg16").startswith("ok")

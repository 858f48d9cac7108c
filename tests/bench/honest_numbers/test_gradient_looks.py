"""What a look at a model's gradient finds beside NaN and 0: nothing at the bounds, or the wrong way."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.arrays import Arrays
from bench.data.load import Dataset
from bench.errors import BenchError
from bench.evaluation.inspection import inspect
from bench.system.torch_state import torch_state_kept


class Before(nn.Module):
    """A network behind a function of the images."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name = name
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "reversed":
            x = x * 1
            if x.requires_grad:
                x.register_hook(lambda gradient: -gradient)
        elif self.name != "plain":
            x = {"clamp": x.clamp(0, 1), "relu": x.relu(), "wide": x.clamp(-1, 2), "pool": pooled(x)}[self.name]
        logits: Tensor = self.net(x)
        return logits


def pooled(x: Tensor) -> Tensor:
    return nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("clamp", ["gradient zero at the bounds"]),
        ("relu", ["gradient zero at the bounds"]),
        ("reversed", ["gradient misleads"]),
        ("plain", []),
        ("wide", []),
        ("pool", []),
    ],
)
def test_a_gradient_that_stops_or_misleads_is_noted(name: str, kinds: list[str], digits: Dataset) -> None:
    assert [note.kind for note in inspect(Before(name).eval(), digits)] == kinds


def test_torchs_settings_are_put_back() -> None:
    with torch_state_kept():
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_autocast_enabled("cpu", True)
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def test_bytes_of_0_and_1_are_no_images() -> None:
    x, y = np.eye(8, dtype=np.uint8)[None, None].repeat(4, 0), np.arange(4)
    with pytest.raises(BenchError, match="multiply by 255"):
        Arrays(x, y, x, y).check("bits")

"""A small network that attacks break in part."""

import pytest
import torch
from torch import nn

from bench.data.load import Dataset, as_pixels


@pytest.fixture(scope="session")
def cnn(digits: Dataset) -> nn.Module:
    """Trained for 60 steps on digits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
    )
    net.append(nn.Linear(16 * 9, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    x, y = as_pixels(digits.x_train), digits.y_train
    for step in range(60):
        rows = torch.arange(step * 64, step * 64 + 64) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)

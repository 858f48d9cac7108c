"""A folder with forty test images, a network that is right about them, and strangers' models around it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.data.load import Dataset, as_pixels
from tests.bench.honest_numbers import strangers

FEW = 40


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """With `plugin.py`, its weights, and the data set `few` in bench.toml."""
    place = tmp_path_factory.mktemp("strangers")
    train, test = slice(200), slice(FEW)
    np.savez(
        place / "few.npz",
        x_train=digits.x_train[train].numpy(),
        y_train=digits.y_train[train].numpy(),
        x_test=digits.x_test[test].numpy(),
        y_test=digits.y_test[test].numpy(),
    )
    torch.save(_weights(digits), place / "weights.pt")
    shutil.copy(strangers.__file__, place / "plugin.py")
    (place / "bench.toml").write_text(
        '[run]\ndatasets = ["few"]\neps = ["32"]\nworkers = 1\ndevice = "cpu"\n[datasets.few]\npath = "few.npz"\n'
    )
    return place


def _weights(digits: Dataset) -> dict[str, torch.Tensor]:
    x, y = as_pixels(digits.x_train), digits.y_train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(100):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.state_dict()

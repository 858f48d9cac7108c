"""A network trained elsewhere."""

import pytest
import torch
from torch.nn import functional

from bench.data.load import Dataset, as_pixels
from tests.bench.training.foreign import MEAN, STD, TheirResNet20


@pytest.fixture(scope="session")
def theirs(digits: Dataset) -> TheirResNet20:
    """Trained a little, behind its own normalisation, so that its accuracy means something."""
    torch.manual_seed(0)
    net = TheirResNet20()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    x, y = (as_pixels(digits.x_train) - MEAN[0]) / STD[0], digits.y_train
    for rows in torch.randperm(len(x)).split(100)[:10] * 2:
        optimizer.zero_grad()
        functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()

"""Without gradients, as a search by queries asks."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield

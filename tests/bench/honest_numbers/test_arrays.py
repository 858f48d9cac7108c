"""Arrays that are no images with labels are refused, with what is true of them."""

import numpy as np
import pytest

from bench.data.arrays import Arrays
from bench.errors import BenchError


def arrays(shape: tuple[int, ...], labels: tuple[int, ...] = (0, 8)) -> Arrays:
    x, y = np.zeros((len(labels), *shape), np.uint8), np.array(labels, np.int64)
    return Arrays(x, y, x, y)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (28, 20, 3)])
def test_channels_last_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BenchError, match=r"looks like \(N, H, W, C\): store x.transpose\(0, 3, 1, 2\)"):
        arrays(shape).check("mine")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 28, 3), (64, 1, 1), (16, 2, 3)])
def test_channels_first_pass_however_narrow(shape: tuple[int, ...]) -> None:
    arrays(shape).check("mine")


def test_labels_below_zero_are_told_what_is_expected() -> None:
    with pytest.raises(BenchError, match=r"holds labels -1 to 8, expected from 0 on\.$"):
        arrays((1, 8, 8), (-1, 8)).check("mine")
    with pytest.raises(BenchError, match=r"holds labels -1 to 8, expected 0 to 8\.$"):
        arrays((1, 8, 8), (-1, 8)).check("mine", classes=9)

"""The built-in data sets. Statistics are the training sets' published ones, per channel, of pixels in [0, 1]."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.arrays import Arrays
from bench.errors import BenchError, first_line
from bench.registry import dataset


@dataset("digits", classes=10, mean=(0.3053,), std=(0.3762,), offline=True)
def digits(folder: Path) -> Arrays:
    """1,797 handwritten digits, 8×8, shipped with scikit-learn; every fifth image is the test set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Pixels are 0…16 there.
    x = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
    y = bunch.target.astype(np.int64)
    test = np.arange(len(x)) % 5 == 4
    return Arrays(x[~test], y[~test], x[test], y[test])


@dataset("mnist", classes=10, mean=(0.1307,), std=(0.3081,))
def mnist(folder: Path) -> Arrays:
    """MNIST: 60,000 / 10,000 digits, 1×28×28 (LeCun et al. 1998)."""
    from torchvision.datasets import MNIST

    parts = [_fetch("mnist", folder, lambda t=train: MNIST(folder, train=t, download=True)) for train in (True, False)]
    arrays = [array for part in parts for array in (part.data.numpy()[:, None], part.targets.numpy())]
    return _arrays(*arrays)


@dataset("cifar10", classes=10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), augment=True)
def cifar10(folder: Path) -> Arrays:
    """CIFAR-10: 50,000 / 10,000 images, 3×32×32 (Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", folder, CIFAR10)


@dataset("cifar100", classes=100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), augment=True)
def cifar100(folder: Path) -> Arrays:
    """CIFAR-100: 50,000 / 10,000 images, 3×32×32, 100 fine labels (Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", folder, CIFAR100)


@dataset("svhn", classes=10, mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), augment=True)
def svhn(folder: Path) -> Arrays:
    """SVHN, cropped: 73,257 / 26,032 house numbers, 3×32×32 (Netzer et al. 2011)."""
    from torchvision.datasets import SVHN

    arrays: list[NDArray[Any]] = []
    for split in ("train", "test"):
        path = folder / f"{split}_32x32.mat"
        if not path.exists():
            _fetch("svhn", folder, lambda s=split: SVHN(folder, split=s, download=True))
        arrays += read_svhn(path)
    return _arrays(*arrays)


def read_svhn(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """One split of the original layout: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    try:
        file = loadmat(path)
        x, y = file["X"], file["y"]
    except Exception as error:  # loadmat raises many kinds on a damaged file
        raise BenchError(
            f"data set 'svhn': {path} is damaged ({first_line(error)}); delete it and fetch it anew."
        ) from error
    return x.transpose(3, 2, 0, 1), y[:, 0] % 10


def _cifar(name: str, folder: Path, cls: Any) -> Arrays:
    parts = [_fetch(name, folder, lambda t=train: cls(folder, train=t, download=True)) for train in (True, False)]
    return _arrays(*(a for part in parts for a in (part.data.transpose(0, 3, 1, 2), np.asarray(part.targets))))


def _fetch(name: str, folder: Path, download: Any) -> Any:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return download()
    except Exception as error:  # urllib, OSError, RuntimeError: all mean the same to the user
        raise BenchError(
            f"data set '{name}' is not in {folder} and could not be downloaded ({first_line(error)}); "
            f"put {name}.npz there (x_train, y_train, x_test, y_test) or give --data-dir."
        ) from error


def _arrays(*parts: NDArray[Any]) -> Arrays:
    x_train, y_train, x_test, y_test = parts
    return Arrays(
        np.ascontiguousarray(x_train, np.uint8),
        y_train.astype(np.int64),
        np.ascontiguousarray(x_test, np.uint8),
        y_test.astype(np.int64),
    )

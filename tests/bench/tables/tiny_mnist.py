"""A small stand-in for MNIST, so that the paper's rows can be filled in seconds: the embedded digits, enlarged."""

from pathlib import Path

import numpy as np

from bench.data.load import load

TEST_IMAGES = 260


def write_tiny_mnist(folder: Path) -> Path:
    """`<folder>/mnist.npz` with 400 training and 260 test images of 28×28; returns the folder."""
    digits = load("digits", Path("unused"))
    x = np.concatenate([digits.x_train.numpy(), digits.x_test.numpy()])
    y = np.concatenate([digits.y_train.numpy(), digits.y_test.numpy()])
    x = np.kron(x, np.ones((1, 1, 3, 3), np.uint8))
    x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"train": slice(0, 400), "test": slice(400, 400 + TEST_IMAGES)}
    arrays = {f"{k}_{name}": v[rows[name]] for name in rows for k, v in (("x", x), ("y", y))}
    np.savez(folder / "mnist.npz", allow_pickle=False, **arrays)
    return folder

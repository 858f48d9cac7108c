"""Four arrays make a data set: read from .npz, checked, hashed."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, first_line

_CHANNELS = (1, 3)  # of images as they are stored with their channels last
FIELDS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, C, H, W), labels int64 (N,), in the original order."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]

    def check(self, name: str, classes: int | None = None) -> None:
        """Raises BenchError where shapes, types or labels do not fit; the message says which."""
        for split in ("train", "test"):
            x, y = getattr(self, f"x_{split}"), getattr(self, f"y_{split}")
            problem = None
            if x.dtype != np.uint8 or x.ndim != 4:
                problem = f"x_{split} must be uint8 (N, C, H, W), is {x.dtype} {x.shape}"
            elif y.dtype != np.int64 or y.ndim != 1:
                problem = f"y_{split} must be int64 (N,), is {y.dtype} {y.shape}"
            elif x.shape[3] in _CHANNELS and min(x.shape[1:3]) > max(_CHANNELS):
                problem = (
                    f"x_{split} is {x.shape}, which as (N, C, H, W) has {x.shape[1]} channels, and looks like "
                    "(N, H, W, C): store x.transpose(0, 3, 1, 2)"
                )
            elif x.size and x.max() == 1:
                problem = f"x_{split} holds bytes 0 and 1 alone, and the pixel range is 0 to 255: multiply by 255"
            elif len(x) != len(y) or not len(x):
                problem = f"x_{split} holds {len(x)} images, y_{split} {len(y)} labels"
            elif y.min() < 0 or (classes is not None and y.max() >= classes):
                known = "from 0 on" if classes is None else f"0 to {classes - 1}"
                problem = f"y_{split} holds labels {y.min()} to {y.max()}, expected {known}"
            if problem:
                raise BenchError(f"data set '{name}': {problem}.")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise BenchError(f"data set '{name}': training and test images differ in shape.")


def read_npz(path: Path, name: str) -> Arrays:
    """The four arrays of an .npz file, never unpickled. Raises BenchError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [field for field in FIELDS if field not in file.files]
            if missing:
                raise BenchError(f"data set '{name}': {path} lacks {', '.join(missing)}; it needs {', '.join(FIELDS)}.")
            return Arrays(**{field: file[field] for field in FIELDS})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise BenchError(
            f"data set '{name}': {path} is damaged or no .npz ({first_line(error)}); make it anew."
        ) from error


def content_hash(x: NDArray[np.uint8], y: NDArray[np.int64]) -> str:
    """SHA-256 of one split's shapes, pixels and labels."""
    digest = hashlib.sha256(f"{x.shape}".encode())
    digest.update(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(y).data)
    return digest.hexdigest()

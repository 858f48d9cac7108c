"""A data set by name, with what its models and its results' keys must know of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.arrays import FIELDS, Arrays, content_hash, read_npz
from bench.errors import BenchError, first_line
from bench.models.images import Images
from bench.registry import DatasetEntry
from bench.registry import dataset as datasets
from bench.traits import DatasetTraits


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, C, H, W) and labels int64 (N,), with the statistics and hashes of their content.

    The last tenth of the training set is `held_out`, for selection; training sees the rest alone.
    """

    name: str
    images: Images
    augment: bool
    x_train: Tensor
    y_train: Tensor
    x_held_out: Tensor
    y_held_out: Tensor
    x_test: Tensor
    y_test: Tensor
    train_hash: str
    test_hash: str


def load(name: str, folder: Path, declared: Mapping[str, Any] | None = None) -> Dataset:
    """Load `name` from `<folder>/<name>.npz`, else by its registered loader.

    Args:
        name: a registered data set, one declared in bench.toml, or the stem of an .npz in folder.
        folder: the data dir.
        declared: for a set from bench.toml: `path`, and optionally `mean`, `std`, `augment`.

    Raises:
        BenchError: unknown name, missing or damaged data.
    """
    path = Path(declared["path"]) if declared else folder / f"{name}.npz"
    entry = datasets[name] if name in datasets and not declared else None
    if path.exists() and not (entry and entry.traits.offline):
        arrays = read_npz(path, name)
    elif entry:
        arrays = _registered(entry, folder)
    elif declared:
        raise BenchError(f"data set '{name}': bench.toml says it is in {path}, which does not exist.")
    else:
        arrays = _registered(datasets[name], folder)
    traits = entry.traits if entry else _declared_traits(declared or {})
    arrays.check(name, traits.classes)
    return _dataset(name, arrays, traits)


def _declared_traits(declared: Mapping[str, Any]) -> DatasetTraits:
    mean, std = declared.get("mean"), declared.get("std")
    return DatasetTraits(
        mean=tuple(mean) if mean else None, std=tuple(std) if std else None, augment=bool(declared.get("augment"))
    )


def _registered(entry: DatasetEntry, folder: Path) -> Arrays:
    try:
        arrays = entry.target(folder)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"data set '{entry.name}' failed to load: {first_line(error)}.") from error
    if isinstance(arrays, Arrays):
        return arrays
    try:
        return Arrays(**{key: np.ascontiguousarray(value) for key, value in dict(arrays).items()})
    except (TypeError, ValueError) as error:
        raise BenchError(
            f"data set '{entry.name}': its loader must return a dict of {', '.join(FIELDS)} ({first_line(error)})."
        ) from error


def _dataset(name: str, arrays: Arrays, traits: DatasetTraits) -> Dataset:
    _, channels, height, width = arrays.x_train.shape
    classes = traits.classes or int(max(arrays.y_train.max(), arrays.y_test.max())) + 1
    mean, std = traits.mean, traits.std
    if mean is None or std is None:
        pixels = arrays.x_train.astype(np.float64) / 255
        mean = tuple(round(float(m), 4) for m in pixels.mean((0, 2, 3)))
        std = tuple(max(round(float(s), 4), 1e-4) for s in pixels.std((0, 2, 3)))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise BenchError(f"data set '{name}': mean and std need {channels} value(s) each, std above 0.")
    cut = len(arrays.x_train) - len(arrays.x_train) // 10
    x_train, y_train = torch.from_numpy(arrays.x_train), torch.from_numpy(arrays.y_train)
    return Dataset(
        name=name,
        images=Images((channels, height, width), classes, tuple(mean), tuple(std)),
        augment=traits.augment,
        x_train=x_train[:cut],
        y_train=y_train[:cut],
        x_held_out=x_train[cut:],
        y_held_out=y_train[cut:],
        x_test=torch.from_numpy(arrays.x_test),
        y_test=torch.from_numpy(arrays.y_test),
        train_hash=content_hash(arrays.x_train, arrays.y_train),
        test_hash=content_hash(arrays.x_test, arrays.y_test),
    )


def as_pixels(x: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return x.float() / 255

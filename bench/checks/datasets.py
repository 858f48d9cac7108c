"""What a data set must be: well-formed, the same at every load, and without test images in its training set."""

from collections.abc import Callable, Iterator

import torch

from bench.data.load import Dataset, as_pixels, load
from bench.settings.config import Config


def dataset_points(name: str, config: Config) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Points for a data set; one that does not load, or whose arrays are malformed, fails the first."""
    declared = config.datasets.get(name)

    def fetch() -> Dataset:
        return load(name, config.paths.data, declared.model_dump() if declared else None)

    yield "it loads: uint8 (N, C, H, W), int64 labels below the class count", lambda: _loads(fetch)
    yield "it has the same content hash at every load", lambda: _stable(fetch(), fetch())
    yield "every class occurs in training and in test set", lambda: _classes(fetch())
    yield "no test image is in the training set", lambda: _overlap(fetch())
    yield "mean and std fit the training images (0.05)", lambda: _statistics(fetch())


def _loads(fetch: Callable[[], Dataset]) -> str | None:
    fetch()  # load() raises with the reason
    return None


def _stable(first: Dataset, second: Dataset) -> str | None:
    same = (first.train_hash, first.test_hash) == (second.train_hash, second.test_hash)
    return None if same else "two loads differ: fix the order and the split"


def _classes(data: Dataset) -> str | None:
    for split, labels in (("training", data.y_train), ("test", data.y_test)):
        missing = sorted(set(range(data.images.classes)) - set(labels.unique().tolist()))
        if missing:
            return f"the {split} set has no example of class {missing[0]}"
    return None


def _overlap(data: Dataset) -> str | None:
    seen = {image.numpy().tobytes() for image in torch.cat([data.x_train, data.x_held_out])}
    shared = sum(image.numpy().tobytes() in seen for image in data.x_test)
    return None if shared == 0 else f"{shared} of {len(data.x_test)} test images are"


def _statistics(data: Dataset) -> str | None:
    pixels = as_pixels(data.x_train[:10_000])
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    found, declared = torch.stack([mean, std]), torch.tensor([data.images.mean, data.images.std])
    gap = float((found - declared).abs().max())
    return None if gap <= 0.05 else f"they are off by {gap:.3f}: give them per channel, of pixels in [0, 1]"

"""Attacked images of a shard, kept for a second look: float32 as they were judged, bit for bit.

No smaller form is exact: x + ε·u with a random u needs every bit of its float32, and float16 or 255ths would move a
verdict. 1,000 MNIST images take 3.1 MB, 1,000 of CIFAR-10 12.3 MB, for each attack at each radius.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bench.errors import BenchError, first_line
from bench.system.files import write_atomically

_NAME = "images"


def write_images(path: Path, images: Tensor) -> None:
    """float32 images, (N, C, H, W), as one file that is wholly there or not there."""
    write_atomically(path, lambda part: part.write_bytes(save({_NAME: images.contiguous()})))


def read_images(path: Path, count: int) -> Tensor:
    """The `count` images of a file, float32 (count, C, H, W). Raises BenchError for a damaged or another file."""
    if not path.exists():
        raise BenchError(f"kept images {path} are missing; run with --keep-adversarial to make them again.")
    try:
        images = load_file(path)[_NAME]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BenchError(
            f"kept images {path} are damaged ({first_line(error)}); delete the file and run with --keep-adversarial."
        ) from error
    if images.dtype != torch.float32 or images.ndim != 4 or len(images) != count:
        raise BenchError(
            f"kept images {path} are {tuple(images.shape)} {images.dtype}, expected {count} float32 images; "
            "delete the file and run with --keep-adversarial."
        )
    return images

"""Reading files of weights from elsewhere: tensors alone, never code."""

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bench.errors import BenchError, first_line


def read_tensors(path: Path) -> Any:
    """What a .safetensors file, or one by torch.save, holds: tensors and plain Python values, on the CPU.

    Raises:
        BenchError: a damaged file, or one that asks for more than tensors and could run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol it may not know; what it cannot read it refuses
            return torch.load(path, weights_only=True, map_location="cpu")
    except UnpicklingError as error:
        asks = re.search(r"GLOBAL (\S+)", str(error))
        raise BenchError(
            f"checkpoint {path} is refused: {f'it asks for {asks[1]}' if asks else 'it is no plain file of tensors'}, "
            "and unpickling more than tensors could run code. Save its state_dict alone."
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise BenchError(
            f"checkpoint {path} is truncated or damaged ({first_line(error)}); get it or save it again."
        ) from error

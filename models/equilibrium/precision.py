"""Where a model must not follow the caller into reduced precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(x: Tensor) -> Iterator[Tensor]:
    """Autocast off while the block runs; yields x, in float32 if it came in bfloat16 or float16.

    A fixed point cannot be solved to 1e-3 where the spacing of numbers is 4e-3 (bfloat16).
    """
    with torch.autocast(x.device.type, enabled=False):
        yield x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

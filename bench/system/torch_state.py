"""torch's global settings, put back behind foreign code that may change them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """Default type and device, gradient mode and autocast are afterwards what they were."""
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    autocast = {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(gradients)
        for kind, enabled in autocast.items():
            if torch.is_autocast_enabled(kind) != enabled:
                torch.set_autocast_enabled(kind, enabled)

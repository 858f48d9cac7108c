"""Examples leave a search as soon as they are decided; the others go on without them."""

from dataclasses import fields
from typing import Any

from torch import Tensor


def keep_active(state: Any, kept: Tensor) -> None:
    """Drop examples from a dataclass of tensors with one entry per example; `kept`: boolean, (N,)."""
    if not bool(kept.all()):
        for item in fields(state):
            setattr(state, item.name, getattr(state, item.name)[kept])

"""The space a protocol attacks in: pixels, or, as a control, the tensors behind the normalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.registry import ProtocolEntry

Space = Literal["pixel", "normalised"]


@dataclass(frozen=True)
class Victim:
    """What is attacked and judged.

    Attributes:
        model: from inputs of the space to logits.
        to_space: from images in [0, 1], (N, C, H, W), to inputs of the space.
        unit: how much of the pixel range a difference of 1 in the space is, per channel (C, 1, 1); None: all of it.
    """

    model: nn.Module
    to_space: Callable[[Tensor], Tensor]
    unit: Tensor | None


def space_of(protocol: ProtocolEntry) -> Space:
    """The protocol's trait `space`; pixels where it has none."""
    return protocol.traits.space


def in_space(model: nn.Module, space: Space) -> Victim:
    """The model as an attack in this space meets it. Raises BenchError where it lacks the split for that."""
    if space == "pixel":
        return Victim(model, lambda x: x, None)
    normalize, body = getattr(model, "normalize", None), getattr(model, "body", None)
    std = getattr(normalize, "std", None)
    if not isinstance(normalize, nn.Module) or not isinstance(body, nn.Module) or not isinstance(std, Tensor):
        raise BenchError(
            "it cannot be evaluated under a protocol that attacks normalised tensors: it is not split into "
            "`normalize` (with its `std`) and `body`, as bench.models.images.Classifier is"
        )
    return Victim(body, normalize, std)


@torch.no_grad()
def check_space(model: nn.Module, space: Space, x: Tensor) -> None:
    """Raise BenchError where a model cannot be attacked in the space, or is another function there.

    Args:
        x: images in [0, 1], (N, C, H, W), on which `body` behind `normalize` must give the model's own logits.
    """
    victim = in_space(model, space)
    if space == "pixel":
        return
    whole, split = model(x), victim.model(victim.to_space(x))
    if whole.shape != split.shape or not torch.allclose(whole, split, rtol=1e-3, atol=1e-4):
        raise BenchError(
            "it cannot be evaluated under a protocol that attacks normalised tensors: its `body` behind its "
            "`normalize` gives other logits than the model itself"
        )

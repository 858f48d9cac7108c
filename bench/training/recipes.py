"""Recipes: what one optimisation step minimises. A new one is one function here or in a plugin."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.registry import recipe


@dataclass(frozen=True)
class Moment:
    """Where training stands.

    Attributes:
        done: share of all steps, in [0, 1].
        generator: this step's own random numbers (CPU). A recipe that draws from nothing else gives
            the same weights when training is resumed.
    """

    done: float
    generator: torch.Generator


@recipe("standard")
def standard(model: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """Cross-entropy on clean images (Section 5.2.1)."""
    return functional.cross_entropy(model(x).float(), y)

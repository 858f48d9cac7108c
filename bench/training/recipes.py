"""Recipes: what one optimisation step minimises. A new one is one function here or in a plugin.

Traits of a recipe that the harness reads:

- `prepare(job, data, folder, device, train_settings) -> (data, notes)`: called before training; what
  it returns is trained on, and the notes stand in the card under `training_set`;
- `sources`: names of options that hold a model's name; `prepare` finds their jobs in `job.sources`.
"""

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

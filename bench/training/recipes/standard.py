"""Recipes: what one optimisation step minimises. A new one is one function here or in a plugin.

Traits of a recipe that the harness reads:

- `settings`: stand in for those of [train] in bench.toml;
- `schedule`: of the learning rate;
- `prepare(job, data, folder, device, train_settings) -> (data, notes)`: called before training; what
   it returns is trained on, and the notes stand in the card under `training_set`;
- `sources`: names of options that hold a model's name; `prepare` finds their jobs in `job.sources`.
- `idle(**options) -> dict`: options without effect beside the others, and what they belong to.

A model whose training is a recipe of its own names it as its trait `recipe`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.registry import recipe


@dataclass(frozen=True)
class TrainingStep:
    """Where training stands.

    Attributes:
        done: share of all steps, in [0, 1).
        generator: this step's own random numbers (CPU). A recipe that draws from nothing else gives
            the same weights when training is resumed.
        logits: the log's training accuracy is that of the last entry. Every forward of the model appends its
            output; a recipe that gets logits in another way appends them itself.
    """

    done: float
    generator: torch.Generator
    logits: list[Tensor] = field(default_factory=list)


# (step, steps) to a factor of the initial rate; a recipe names its own as the trait `schedule`.
Schedule = Callable[[int, int], float]


def cosine(step: int, steps: int) -> float:
    """From 1 to 0 over all steps (Section 5.2.1)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


@recipe("standard")
def standard(model: nn.Module, x: Tensor, y: Tensor, moment: TrainingStep) -> Tensor:
    """Cross-entropy on clean images (Section 5.2.1)."""
    return functional.cross_entropy(model(x).float(), y)

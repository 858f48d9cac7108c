"""Recipes: what one optimisation step minimises. A new one is one function here or in a plugin.

A recipe may be registered with `settings`, which stand in for those of [train] in bench.toml, and with a
`schedule` of the rate. A model whose training is a recipe of its own names it as its trait `recipe`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.registry import recipe


@dataclass(frozen=True)
class Moment:
    """Where training stands.

    Attributes:
        done: share of all steps, in [0, 1).
        generator: this step's own random generator (CPU).
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
def standard(model: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """Cross-entropy on clean images (Section 5.2.1)."""
    return functional.cross_entropy(model(x), y)

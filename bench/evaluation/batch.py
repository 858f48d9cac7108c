"""What an engine is given, test examples with their draws, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.attacks.core.draws import Draws
from bench.data.load import Dataset
from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import Outcomes


@dataclass(frozen=True)
class Batch:
    """Test examples.

    Attributes:
        x, y: uint8 images (N, C, H, W) and labels (N,), on the CPU.
        indices: the examples' positions in the test set, (N,).
        draws: from positions to their random draws.
    """

    x: Tensor
    y: Tensor
    indices: Sequence[int]
    draws: Callable[[Sequence[int]], Draws]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Evaluated:
    """What an engine found of a batch.

    Attributes:
        outcomes: a value per example in each column (`outcome_columns`).
        budget: what it took.
        images: the images that were judged, (N, C, H, W), on the CPU; None where nobody asked for them.
    """

    outcomes: Outcomes
    budget: Budget
    images: Tensor | None = None


def examples_of(data: Dataset, indices: Sequence[int], seed: int) -> Batch:
    """Test examples of a data set by position, with the draws of an attack seed."""
    chosen = slice(indices.start, indices.stop) if isinstance(indices, range) and indices.step == 1 else list(indices)
    return Batch(
        data.x_test[chosen], data.y_test[chosen], indices, lambda positions: Draws(seed, data.test_hash, positions)
    )

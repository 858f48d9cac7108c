"""The packed engine on a model and its test images, as the program runs it in a worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from torch import nn

from attacks.climb import Lane
from attacks.draws import Draws
from attacks.protocols import paper
from bench.budget import Budget
from bench.cells import SHARD
from bench.data.load import Dataset
from bench.pace import pace
from bench.packed import evaluate_packed
from bench.registry import attack
from bench.tasks import TOGETHER
from bench.verdict import Outcomes

BATCH = 250


@dataclass(frozen=True)
class Ran:
    """Name and radius of every attack with what it found and took; CPU seconds of all."""

    found: dict[tuple[str, float], tuple[Outcomes, Budget]]
    seconds: float


def _matrix(radii: Sequence[Fraction]) -> dict[tuple[str, float], tuple[Lane, float]]:
    """The paper's protocol at these radii."""
    return {
        (name, float(radius)): (attack[name].traits["lane"](**attack[name].resolve(given)), float(radius))
        for radius in radii
        for name, given in paper(radius).items()
    }


def rows_for(net: nn.Module, data: Dataset, radii: Sequence[Fraction]) -> int:
    """Images per forward, found as for a run."""
    return pace(net, data, BATCH, lanes=TOGETHER * len(_matrix(radii))).rows


def run_matrix(net: nn.Module, data: Dataset, radii: Sequence[Fraction], images: range, rows: int) -> Ran:
    """The paper's protocol at these radii on these images, `rows` per forward at most."""
    lanes, batch = _matrix(radii), max(BATCH, min(rows, TOGETHER * SHARD))
    cut, draws = slice(images.start, images.stop), partial(Draws, 0, data.test_hash)
    start = time.process_time()
    found = evaluate_packed(
        net, data.images.classes, list(lanes.values()), data.x_test[cut], data.y_test[cut], images, draws, batch, rows
    )
    return Ran(dict(zip(lanes, found, strict=True)), time.process_time() - start)

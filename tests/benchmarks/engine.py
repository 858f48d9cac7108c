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
    """Name and radius of every attack with what it found and took; images per forward at most, CPU seconds of all."""

    found: dict[tuple[str, float], tuple[Outcomes, Budget]]
    rows: int
    seconds: float


def run_matrix(net: nn.Module, data: Dataset, radii: Sequence[Fraction], count: int) -> Ran:
    """The paper's protocol at these radii on the first images; sizes of batches are found as for a run, beforehand."""
    names, lanes = list[tuple[str, float]](), list[tuple[Lane, float]]()
    for radius in radii:
        for name, given in paper(radius).items():
            names.append((name, float(radius)))
            lanes.append((attack[name].traits["lane"](**attack[name].resolve(given)), float(radius)))
    rows = pace(net, data, BATCH, lanes=TOGETHER * len(lanes)).rows
    batch = max(BATCH, min(rows, TOGETHER * SHARD))
    x, y, draws = data.x_test[:count], data.y_test[:count], partial(Draws, 0, data.test_hash)
    start = time.process_time()
    found = evaluate_packed(net, data.images.classes, lanes, x, y, range(count), draws, batch, rows)
    return Ran(dict(zip(names, found, strict=True)), rows, time.process_time() - start)

"""The packed engine on a model and its test images, as the program runs it in a worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from bench.attacks.core.sign_ascent import SignAscent
from bench.attacks.protocols import paper
from bench.data.load import Dataset
from bench.evaluation.batch import Evaluated, examples_of
from bench.evaluation.packed_engine import evaluate_packed
from bench.execution.speed_probe import pace
from bench.execution.tasks import TOGETHER
from bench.registry import attack
from bench.store.cells import SHARD

BATCH = 250


@dataclass(frozen=True)
class Ran:
    """Name and radius of every attack with what it found and took; CPU seconds of all."""

    found: dict[tuple[str, float], Evaluated]
    seconds: float


def _matrix(radii: Sequence[Fraction]) -> dict[tuple[str, float], tuple[SignAscent, float]]:
    """The paper's protocol at these radii."""
    return {
        (name, float(radius)): (attack[name].traits.ascent_of(attack[name].resolve(given)), float(radius))
        for radius in radii
        for name, given in paper(radius).items()
    }


def rows_for(net: nn.Module, data: Dataset, radii: Sequence[Fraction]) -> int:
    """Images per forward, found as for a run."""
    return pace(net, data, BATCH, ascents=TOGETHER * len(_matrix(radii))).rows


def run_matrix(net: nn.Module, data: Dataset, radii: Sequence[Fraction], images: range, rows: int) -> Ran:
    """The paper's protocol at these radii on these images, `rows` per forward at most."""
    ascents, batch = _matrix(radii), max(BATCH, min(rows, TOGETHER * SHARD))
    start = time.process_time()
    found = evaluate_packed(
        net,
        list(ascents.values()),
        examples_of(data, images, seed=0),
        classes=data.images.classes,
        batch_size=batch,
        forward_size=rows,
    )
    return Ran(dict(zip(ascents, found, strict=True)), time.process_time() - start)

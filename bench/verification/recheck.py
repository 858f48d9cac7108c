"""Kept adversarial images judged again: in other batches, by a tighter or another solver, in float64.

A verdict should rest on the image alone. Where it changes with how the fixed point was found, what was measured is the
solver. The ball and the pixel range are checked here too, from the bytes of the data set and in float64, apart from
the attack's own contract.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import TOLERANCE
from bench.data.load import Dataset
from bench.errors import BenchError
from bench.evaluation.outcomes import Outcomes
from bench.execution.worker import load_model
from bench.registry import model
from bench.statistics import wilson
from bench.store.adversarial_images import read_images
from bench.store.cells import Cell
from bench.store.store import Store
from bench.thresholds import SOLVER, Verdict, verdict_of

TIGHTER = 100
_SOLVERS = ("broyden", "anderson", "fixed-point")


@dataclass(frozen=True)
class Variant:
    """Another way to judge the same image: other options of the model, another batch size, another type."""

    name: str
    batch: int
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class RecheckResult:
    """What one variant, or the check of ball and range, says of a cell's images.

    Attributes:
        changed: verdicts that are not as stored, or images outside the ball or the range.
        now_right: of them, those stored as misclassified.
        n: images looked at.
    """

    what: str
    changed: int
    n: int
    now_right: int = 0
    note: str = ""
    strict: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the changed share."""
        return wilson(self.changed, self.n)

    @property
    def state(self) -> Verdict:
        if self.strict:  # a bound that must hold for every image
            return "FAIL" if self.changed else "OK"
        return verdict_of(self.interval, SOLVER)[0]


def variants(cell: Cell) -> list[Variant]:
    """Every variant that the cell's model has, the first of them as it was run."""
    options, batch = cell.source.options, cell.batch
    found = [Variant("as run", batch), Variant("batch 1", 1), Variant("batch 64", 64)]
    if "tol" in options:
        tighter = {"tol": options["tol"] / TIGHTER}
        if "max_iter" in options:
            tighter["max_iter"] = 4 * options["max_iter"]
        found.append(Variant(f"tol {tighter['tol']:g}", batch, tighter))
    if "solver" in options:
        other = next((name for name in _SOLVERS if name != options["solver"] and _takes(cell, name)), None)
        found += [Variant(f"solver {other}", batch, {"solver": other})] if other else []
    return [*found, Variant("float64", batch, dtype=torch.float64)]


def recheck(cell: Cell, store: Store, data: Dataset, device: str, examples: int) -> Iterator[RecheckResult]:
    """Findings on the kept images of the first `examples` test images (0: all).

    Raises:
        BenchError: outcomes or images are not in the store, or are damaged.
    """
    if store.missing(cell, examples, images=True):
        raise BenchError(f"the store has no images of {cell.source.label}, {cell.attack_label}, on {cell.dataset}")
    stored = store.outcomes(cell, examples)
    assert stored is not None
    shards = [
        read_images(store.images_path(cell, shard), len(cell.images_of(shard))) for shard in cell.shards(examples)
    ]
    n = len(stored["index"])
    yield _bounds(torch.cat(shards)[:n], data.x_test[:n], stored, float(cell.eps))
    before = stored["adversarial"] == stored["label"]
    for variant in variants(cell):
        net = _load(cell, variant, data, device)
        predicted = np.concatenate([_predict(net, images, variant, device) for images in shards])[:n]
        after = predicted == stored["label"]
        yield RecheckResult(variant.name, int((before != after).sum()), n, int((after & ~before).sum()))


def _bounds(images: Tensor, clean: Tensor, stored: Outcomes, eps: float) -> RecheckResult:
    """Images outside the ball of radius ε or [0, 1], or whose ‖δ‖∞ is not the stored one; the tolerance is 1e-6."""
    adversarial, x = images.numpy().astype(np.float64), clean.numpy().astype(np.float64) / 255
    delta = np.abs(adversarial - x).reshape(len(x), -1).max(1)
    flat = adversarial.reshape(len(x), -1)
    outside: NDArray[Any] = (delta > eps + TOLERANCE) | (flat.min(1) < -TOLERANCE) | (flat.max(1) > 1 + TOLERANCE)
    outside |= np.abs(delta - stored["linf"]) > TOLERANCE
    note = f"‖δ‖∞ ≤ {255 * delta.max():.4f}/255, pixels in [{flat.min():.4g}, {flat.max():.4g}]"
    return RecheckResult("ball, range, ‖δ‖∞", int(outside.sum()), len(x), note=note, strict=True)


def _takes(cell: Cell, solver: str) -> bool:
    try:
        model[cell.source.architecture].resolve({**cell.source.options, "solver": solver})
    except BenchError:
        return False
    return True


def _load(cell: Cell, variant: Variant, data: Dataset, device: str) -> nn.Module:
    source = replace(cell.source, options={**cell.source.options, **variant.options})
    net = load_model(source, data, device, cell.identity.model.weights)
    return net if variant.dtype == torch.float32 else copy.deepcopy(net).to(variant.dtype)


@torch.no_grad()
def _predict(net: nn.Module, images: Tensor, variant: Variant, device: str) -> NDArray[Any]:
    """Predictions for one shard, (N,), in batches cut as the harness cuts them."""
    with parametrize.cached():
        parts = [net(part.clone().to(device, variant.dtype)).argmax(1).cpu() for part in images.split(variant.batch)]
    return torch.cat(parts).numpy()

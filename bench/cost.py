"""What a run would cost, measured on a few of its own images: `--dry-run`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from attacks.draws import Draws
from bench.cells import SHARD
from bench.config import Config
from bench.data.load import Dataset, as_pixels
from bench.outcomes import evaluate
from bench.plan import AttackPlan, Matrix, Row, add_cells, trained
from bench.store import Store
from bench.training.checkpoint import load_weights
from bench.training.loop import build_model, threads, training_threads
from bench.training.recipes import Moment

PROBE = 4  # images that the attack is run on to count its forwards and backwards


@dataclass(frozen=True)
class Cost:
    """One row's cells (and training) still to be computed."""

    row: Row
    train_seconds: float
    cells: int
    shards: int
    forwards: int
    backwards: int
    seconds: float


def estimate(matrix: Matrix, config: Config, device: torch.device) -> list[Cost]:
    """The cost of every row on one worker; what the store has already costs nothing.

    Forwards and backwards are counted on 4 images; their time, and that of a training step, is
    measured on one batch. An untrained model is timed with its initial weights, which may converge faster.
    """
    store = Store(config.paths.store)
    return [_row_cost(row, matrix, config, device, store) for row in matrix.rows if row.job is not None]


def _row_cost(row: Row, matrix: Matrix, config: Config, device: torch.device, store: Store) -> Cost:
    assert row.job is not None
    data = matrix.data[row.dataset]
    model = build_model(row.job, data).to(device)
    ready = trained(row.job, config.paths.checkpoints)
    count = config.train.threads or training_threads(model)
    training = 0.0 if ready else _training_seconds(row, data, model, device, count)
    if ready:
        if not row.job.pretrained:
            load_weights(row.job.checkpoint(config.paths.checkpoints), model)
        add_cells(row, matrix, config, device.type)
    model.eval()
    n = min(config.run.examples or len(data.x_test), len(data.x_test))
    shards = -(-n // SHARD)
    with threads(1):  # as in a worker
        forward, backward = _unit_seconds(model, data, config.run.batch_size, device)
    cells, left, forwards, backwards = 0, 0, 0, 0
    for index, plan in enumerate(matrix.attacks):
        missing = store.missing(row.cells[index], config.run.examples) if row.cells else range(shards)
        images = sum(min(SHARD, len(data.x_test) - shard * SHARD) for shard in missing)
        if not images:
            continue
        counted = _counts(model, data, plan)
        cells, left = cells + 1, left + len(missing)
        forwards += counted[0] * images // PROBE
        backwards += counted[1] * images // PROBE
    seconds = forwards * forward + backwards * backward
    return Cost(row, training, cells, left, forwards, backwards, seconds)


def _counts(model: nn.Module, data: Dataset, plan: AttackPlan) -> tuple[int, int]:
    x, y = data.x_test[:PROBE], data.y_test[:PROBE]
    search = partial(plan.entry.target, **plan.options)

    def draws(indices: Sequence[int]) -> Draws:
        return Draws(0, data.test_hash, indices)

    _, budget = evaluate(model, data.images.classes, search, x, y, float(plan.eps), range(len(x)), draws, PROBE)
    return budget.forwards, budget.backwards


def _unit_seconds(model: nn.Module, data: Dataset, batch: int, device: torch.device) -> tuple[float, float]:
    """Seconds per image of a forward, and of the backward behind it."""
    x, y = as_pixels(data.x_test[:batch]).to(device), data.y_test[:batch].to(device)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def both() -> None:
        images = x.clone().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(model(images), y), images)

    one, two = (_median_seconds(step, device) / len(x) for step in (forward, both))
    return one, max(two - one, 0.0)


def _training_seconds(row: Row, data: Dataset, model: nn.Module, device: torch.device, count: int) -> float:
    assert row.job is not None
    job, settings = row.job, row.job.settings
    batch = min(settings["batch_size"], len(data.x_train))
    x, y = as_pixels(data.x_train[:batch]).to(device), data.y_train[:batch].to(device)
    model.train()

    def step() -> None:
        model.zero_grad()
        moment = Moment(0.5, torch.Generator().manual_seed(0))
        job.recipe.target(model, x, y, moment, **job.recipe_options).backward()

    with threads(count):
        seconds = _median_seconds(step, device)
    return seconds * (len(data.x_train) // batch) * int(settings["epochs"])


def _median_seconds(step: Callable[[], None], device: torch.device, repeats: int = 3) -> float:
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]

"""What a run would cost, measured on a few of its own images: `--dry-run`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.attacks.core.cascade import bind
from bench.attacks.core.draws import Draws
from bench.attacks.core.surrogate_views import find_views
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError, first_line
from bench.evaluation.batch import Batch, examples_of
from bench.evaluation.certificates import certificates, certify
from bench.evaluation.input_space import Space, in_space, space_of
from bench.evaluation.packed_engine import evaluate_packed
from bench.evaluation.reference_engine import evaluate
from bench.execution.matrix_rows import AttackPlan, Matrix, PlannedRow, Row, failed
from bench.execution.plan_cells import ready_row
from bench.execution.speed_probe import least_seconds, pace, timed_on
from bench.models.images import Images
from bench.registry import protocol
from bench.settings.config import Config
from bench.store.cells import SHARD
from bench.store.store import Store
from bench.system.threads import threads
from bench.training.checkpoint_choice import trained
from bench.training.checkpoint_files import load_weights
from bench.training.loop import build_model, training_threads
from bench.training.recipes.standard import TrainingStep

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


def estimate(matrix: Matrix, config: Config, device: torch.device) -> tuple[Matrix, list[Cost]]:
    """The cost of every row on one worker; what the store has already costs nothing.

    Forwards and backwards are counted on 4 images that never fall; their time, and that of a training step, is measured
    on one batch. An untrained model is timed with its initial weights, which may converge faster.

    Returns:
        The matrix, rows that cannot be evaluated failed; and a cost for each of the others.
    """
    store, costs, rows = Store(config.paths.store), list[Cost](), list[Row]()
    for row in matrix.rows:
        if isinstance(row, PlannedRow):
            try:
                costs.append(_row_cost(row, matrix, config, device, store))
            except BenchError as error:
                rows.append(failed(row, f"{row.label}: {error}"))
                continue
            except (Exception, SystemExit) as error:
                rows.append(failed(row, f"{row.label}: its cost cannot be measured, {first_line(error)}"))
                continue
        rows.append(row)
    return matrix.with_rows(rows), costs


def _row_cost(row: PlannedRow, matrix: Matrix, config: Config, device: torch.device, store: Store) -> Cost:
    data = matrix.data[row.dataset]
    model = build_model(row.job, data).to(device)
    ready = trained(row.job, config.paths.checkpoints)
    count = config.train.threads or training_threads(model)
    training = 0.0 if ready else _training_seconds(row, data, model, device, count)
    if ready and not row.job.pretrained:
        load_weights(row.job.checkpoint(config.paths.checkpoints), model)
    known = all(trained(job, config.paths.checkpoints) for job in row.jobs)
    there = ready_row(row, matrix, config, device.type) if known else row
    model.eval()
    n = min(config.run.examples or len(data.x_test), len(data.x_test))
    shards = -(-n // SHARD)
    space = space_of(protocol[config.run.protocol])
    with threads(1):  # as in a worker
        speed = pace(model, data, config.run.batch_size, len(matrix.attacks))
    cells, left, forwards, backwards = 0, 0, 0, 0
    plans: list[tuple[AttackPlan, int]] = []
    for index, plan in enumerate(matrix.attacks):
        missing = (
            store.missing(there.cells[index], config.run.examples, config.run.keep_adversarial)
            if there.cells
            else range(shards)
        )
        images = sum(min(SHARD, len(data.x_test) - shard * SHARD) for shard in missing)
        if images:
            plans.append((plan, images))
            cells, left = cells + 1, left + len(missing)
    spent = counts(model, data.images, [plan for plan, _ in plans], space, config.run.engine)
    for (_, images), (ahead, back) in zip(plans, spent, strict=True):
        forwards += ahead * images // PROBE
        backwards += back * images // PROBE
    seconds = forwards * speed.forward + backwards * (speed.gradient - speed.forward)
    for proof in certificates(model) if space == "pixel" else []:
        untrained = [range(shards)] * len(matrix.eps)
        own = [cell for cell in there.certificates if cell.attack_options == proof.options]
        todo = [store.missing(cell, config.run.examples) for cell in own] or untrained
        images = sum(min(SHARD, len(data.x_test) - shard * SHARD) for missing in todo for shard in missing)
        cells, left = cells + sum(map(bool, todo)), left + sum(map(len, todo))
        forwards += images
        if images:
            method = proof.options.get("method", "")
            with threads(1):
                each = _certificate_seconds(model, data, float(matrix.eps[-1]), config.run.batch_size, method)
            seconds += images * each
    return Cost(row, training, cells, left, forwards, backwards, seconds)


class Unbreakable(nn.Module):
    """Logits for class 0, whatever the image: on nothing does a cascade spend more. Its views are itself.

    It is less sure at every call, so that a search that leaves out what was refused has nothing to leave out.
    """

    def __init__(self, classes: int, views: Sequence[str]) -> None:
        super().__init__()
        self.logits = functional.one_hot(torch.tensor(0), classes).float()
        self.named = views
        self.calls = 0
        self.device = nn.Parameter(torch.zeros(()))  # attacks ask a model's parameters where they are

    def views(self) -> dict[str, nn.Module]:
        return {name: nn.Sequential(self) for name in self.named}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.logits / self.calls + 0 * x.flatten(1).sum(1, keepdim=True)


def counts(
    model: nn.Module, images: Images, plans: Sequence[AttackPlan], space: Space, engine: str
) -> list[tuple[int, int]]:
    """Forwards and backwards of every attack on 4 images, as if none of them fell. What a pack shares is divided.

    Counted without the model, which may be slow, and which an attack may spoil. Raises BenchError for a model that
    cannot be attacked in the space.
    """
    in_space(model, space)
    # On normalised tensors nothing is shared (`bench.attacks.core.sign_ascent`), so that each is counted alone.
    packs = engine == "packed" and space == "pixel"
    ascents = [plan for plan in plans if packs and plan.entry.traits.ascent]
    packed = dict(zip(map(id, ascents), _of_pack(ascents, images), strict=True))
    views = tuple(find_views(model))
    return [packed[id(plan)] if id(plan) in packed else _alone(plan, images, views) for plan in plans]


def _of_pack(plans: Sequence[AttackPlan], images: Images) -> list[tuple[int, int]]:
    ascents = [(plan.entry.traits.ascent_of(plan.options), float(plan.eps)) for plan in plans]
    net = Unbreakable(images.classes, ())
    try:
        found = evaluate_packed(
            net, ascents, _nothing(images), classes=images.classes, batch_size=PROBE, forward_size=PROBE
        )
    except (Exception, SystemExit) as error:
        names = " and ".join(dict.fromkeys(plan.label for plan in plans))
        raise BenchError(f"{names} cannot be counted: {first_line(error)}") from error
    return [(one.budget.forwards, one.budget.backwards) for one in found]


_known: dict[str, tuple[int, int]] = {}


def _alone(plan: AttackPlan, images: Images, views: tuple[str, ...]) -> tuple[int, int]:
    """The same at every radius and for every model of these views."""
    offered = (*views, *(["twin"] if plan.entry.traits.twin else []))
    key = repr((plan.entry.name, sorted(plan.options.items()), offered, images))
    if key not in _known:
        search = bind(plan.entry, plan.options)
        net = Unbreakable(images.classes, offered)
        try:
            spent = evaluate(net, search, _nothing(images), 0.01, classes=images.classes, batch_size=PROBE).budget
        except (Exception, SystemExit) as error:
            raise BenchError(f"{plan.label} cannot be counted: {first_line(error)}") from error
        _known[key] = spent.forwards, spent.backwards
    return _known[key]


def _nothing(images: Images) -> Batch:
    """Black images of class 0."""
    x, y = torch.zeros(PROBE, *images.shape, dtype=torch.uint8), torch.zeros(PROBE, dtype=torch.int64)
    return Batch(x, y, range(PROBE), partial(Draws, 0, "probe"))


def _training_seconds(row: PlannedRow, data: Dataset, model: nn.Module, device: torch.device, count: int) -> float:
    job, settings = row.job, row.job.settings
    batch = min(settings["batch_size"], len(data.x_train))
    on_gpu = device.type == "cuda"
    few = timed_on(model, batch, on_gpu)
    x, y = as_pixels(data.x_train[:few]).to(device), data.y_train[:few].to(device)
    model.train()

    def step() -> None:
        model.zero_grad()
        moment = TrainingStep(0.5, torch.Generator().manual_seed(0))
        job.recipe.target(model, x, y, moment, **job.recipe_options).backward()

    with threads(count):
        seconds = least_seconds(step, on_gpu) * batch / few
    return seconds * (len(data.x_train) // batch) * int(settings["epochs"])


def _certificate_seconds(model: nn.Module, data: Dataset, eps: float, batch: int, method: str) -> float:
    """Seconds per image of a certificate, with the clean forward beside it."""
    some = examples_of(data, range(min(batch, len(data.x_test))), seed=0)
    found = certify(model, some, eps, classes=data.images.classes, batch_size=batch, method=method)
    return found.budget.seconds / len(some)

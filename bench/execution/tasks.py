"""From rows to the work that is left: a shard of a cell, or shards of all cells that are packed together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.evaluation.input_space import space_of
from bench.execution.cost import PROBE, counts
from bench.execution.matrix_rows import Matrix, ReadyRow
from bench.execution.speed_probe import pace
from bench.execution.time_left import Kind
from bench.execution.worker import load_model
from bench.registry import protocol
from bench.settings.config import Config
from bench.store.cells import Cell
from bench.store.store import Store
from bench.system.threads import threads

UNKNOWN = 0.01  # seconds per image of what was not predicted; the forecast corrects it
TOGETHER = 4  # shards that packed cells are computed in at once, at most: what a kill can lose
CASCADE = 2000  # gradients per image of a cascade, which depend on what falls: not worth counting


@dataclass(frozen=True)
class Task:
    """One shard of one cell, or some shards of all cells of a row that are packed together.

    Attributes:
        kind: what its prediction is wrong alike with.
        seconds: it is predicted to take.
        forward_size: images per forward of packed cells, at most.
    """

    row: ReadyRow
    cells: tuple[Cell, ...]
    shards: tuple[int, ...]
    kind: Kind
    seconds: float
    forward_size: int


def row_tasks(
    row: ReadyRow, matrix: Matrix, config: Config, device: str, store: Store, workers: int
) -> tuple[list[Task], int]:
    """What a row lacks, a nested cell behind the next smaller radius that it goes on from; and images per forward.

    Packed cells are computed several shards at once where larger batches pay and every worker has a task.
    """
    examples, keep = config.run.examples, config.run.keep_adversarial
    cells = [*row.cells, *row.certificates]
    missing = {cell.key(): store.missing(cell, examples, keep) for cell in cells}
    if not any(missing.values()):
        return [], 0
    wanted = {key for key, shards in missing.items() if shards}
    seconds, forward_size = _predict(row, matrix, config, device, wanted)
    groups = [
        sorted((cell for cell in cells if cell.packed), key=lambda cell: (cell.attack, cell.eps, cell.key())),
        *([cell] for cell in cells if not cell.packed),
    ]
    tasks = []
    for group in groups:
        # A cell on its own gains nothing from the company of shards, and would be filed only when all are done.
        larger = forward_size > config.run.batch_size and all(cell.packed for cell in group)
        for lacking, shards in _pieces(group, {cell.key(): missing[cell.key()] for cell in group}, larger, workers):
            images = sum(len(lacking[0].images_of(shard)) for shard in shards)
            took = sum(seconds.get(cell.key(), UNKNOWN) for cell in lacking) * images
            tasks.append(Task(row, lacking, shards, _kind(lacking, row), took, forward_size))
    return sorted(tasks, key=lambda task: task.cells[0].eps if task.cells[0].smaller else 0), forward_size


def _pieces(
    group: Sequence[Cell], missing: Mapping[str, Sequence[int]], larger: bool, workers: int
) -> list[tuple[tuple[Cell, ...], tuple[int, ...]]]:
    """Which cells of a group are computed together in which shards; with `larger`, in several at once."""
    wanted = sorted({shard for shards in missing.values() for shard in shards})
    most = min(TOGETHER, -(-len(wanted) // workers)) if larger else 1
    found: list[tuple[tuple[Cell, ...], tuple[int, ...]]] = []
    for shard in wanted:
        lacking = tuple(cell for cell in group if shard in missing[cell.key()])
        if found and found[-1][0] == lacking and len(found[-1][1]) < most:
            found[-1] = lacking, (*found[-1][1], shard)
        else:
            found.append((lacking, (shard,)))
    return found


def _kind(cells: Sequence[Cell], row: ReadyRow) -> Kind:
    attacks = "+".join(sorted({cell.attack_label for cell in cells}))
    return (attacks, row.dataset, row.label, *(() if cells[0].packed else (str(cells[0].eps),)))


def _predict(
    row: ReadyRow, matrix: Matrix, config: Config, device: str, wanted: Collection[str]
) -> tuple[dict[str, float], int]:
    """Seconds per image of the cells with the wanted keys, as far as they can be told, and images per forward."""
    data, batch = matrix.data[row.dataset], config.run.batch_size
    first = (*row.cells, *row.certificates)[0]
    try:
        with threads(1):  # as in a worker
            net = load_model(first.source, data, device, first.identity.model.weights)
            speed = pace(net, data, batch, TOGETHER * sum(cell.packed for cell in row.cells))
    except (Exception, SystemExit):
        return {}, batch  # whoever computes the cells says what is wrong with the model
    seconds = {cell.key(): speed.gradient for cell in row.certificates}
    plans = [(cell.key(), plan) for plan, cell in row.planned if cell.key() in wanted]
    seconds |= {key: CASCADE * speed.gradient for key, plan in plans if plan.entry.traits.stages}
    counted = [(key, plan) for key, plan in plans if key not in seconds]
    space, engine = space_of(protocol[config.run.protocol]), config.run.engine
    try:
        spent = counts(net, data.images, [plan for _, plan in counted], space, engine)
    except (Exception, SystemExit):
        return seconds, speed.rows  # nor is an attack judged here
    for (key, _), (forwards, backwards) in zip(counted, spent, strict=True):
        seconds[key] = (forwards * speed.forward + backwards * (speed.gradient - speed.forward)) / PROBE
    return seconds, speed.rows

"""Computing shards: in this process, or in a worker that only gets picklable facts."""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from bench.attacks.core.cascade import bind
from bench.attacks.core.contract import ContractError
from bench.data.load import Dataset, load
from bench.errors import BenchError, first_line_or_traceback
from bench.evaluation.batch import Evaluated, examples_of
from bench.evaluation.certificates import certify
from bench.evaluation.input_space import space_of
from bench.evaluation.outcomes import same_outcomes
from bench.evaluation.packed_engine import evaluate_packed
from bench.evaluation.reference_engine import SmallerRadius, evaluate
from bench.registry import attack, model, protocol
from bench.settings.plugins import load_plugins
from bench.store.adversarial_images import read_images, write_images
from bench.store.cells import Cell, Source
from bench.store.store import Store
from bench.system.environment import make_exact
from bench.system.memory import prepare_memory
from bench.training.checkpoint_files import load_weights, weights_hash
from bench.training.loop import foreign_model, initial_model

State = Literal["done", "busy", "failed"]


@dataclass(frozen=True)
class Setting:
    """What every task of a run shares.

    Attributes:
        declared: [datasets.NAME] of bench.toml for sets that are declared there.
        keep_images: whether the attacked images are kept beside their shard.
    """

    store: Path
    data: Path
    declared: dict[str, dict[str, Any]]
    plugins: tuple[str, ...]
    device: str
    keep_images: bool = False
    debug: bool = False


@dataclass(frozen=True)
class TaskResult:
    """How the work on a shard ended, and what it took; `message` says which attack failed, and why."""

    state: State
    message: str = ""
    seconds: float | None = None


def start_worker(setting: Setting) -> None:
    """Prepare a worker process: one thread, its plugins, and an end as soon as its parent is gone."""
    torch.set_num_threads(1)
    make_exact()
    prepare_memory()
    parent = parent_process()
    if parent is not None:
        # A parent killed by SIGKILL cannot tell its workers; without this they would wait for ever.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    load_plugins(setting.plugins)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def compute(setting: Setting, cells: Sequence[Cell], shards: Sequence[int], forward_size: int = 0) -> TaskResult:
    """Compute and store shards of one cell, or of several packed ones of the same model, data, space and seed.

    What is there is left alone, and what another process is at: then the state is `busy`. A model or attack that
    raises fails alone: its message comes back as a result, and packed cells are then tried one by one. A full disk or
    a damaged store concerns every cell and raises BenchError.

    Args:
        forward_size: images per forward of packed cells, at most; 0: a batch.
    """
    store, started = Store(setting.store), time.monotonic()
    claims = [(cell, shard, store.claim(cell, shard)) for shard in shards for cell in cells]
    try:

        def lacks(shard: int) -> list[Cell]:
            claimed = [cell for cell, place, lock in claims if place == shard and lock]
            return [cell for cell in claimed if not store.has(cell, shard, setting.keep_images)]

        mine = [(lacking, list(places)) for lacking, places in groupby(shards, lacks) if lacking]
        needed = [(c.smaller, place) for lacking, places in mine for place in places for c in lacking if c.smaller]
        if not all(store.has(smaller, place) for smaller, place in needed):
            return TaskResult("busy")  # it goes on from there
        for lacking, places in mine:
            problems = _compute(setting, store, lacking, places, forward_size)
            if len(problems) == len(lacking) > 1:
                problems = [
                    problem for cell in lacking for problem in _compute(setting, store, [cell], places, forward_size)
                ]
            if problems:
                return TaskResult("failed", problems[0])
        busy = any(lock is None for *_, lock in claims)
        return TaskResult("busy" if busy else "done", seconds=time.monotonic() - started if mine else None)
    finally:
        for *_, lock in claims:
            if lock is not None:
                store.release(lock)


def _compute(
    setting: Setting, store: Store, cells: Sequence[Cell], shards: Sequence[int], forward_size: int
) -> list[str]:
    """Compute and file shards of every cell; returns what kept cells from it, one line each."""
    try:
        found = _evaluate(setting, store, cells, shards, forward_size)
    except (Exception, SystemExit) as error:
        _models.clear()  # whatever failed may have left its mark on the model
        known = isinstance(error, BenchError | ContractError)
        hidden = error if not known else error.__cause__ if isinstance(error, ContractError) else None
        shown = first_line_or_traceback(hidden, setting.debug) if hidden else ""
        where = "" if setting.debug or not hidden else "; --debug shows where"
        why = f"{error}{where}" if known else shown
        return [f"{cell.attack_label}: {why}" for cell in cells]
    problems = []
    for cell, theirs in zip(cells, found, strict=True):
        filed = [_file(store, setting, cell, shard, one) for shard, one in zip(shards, theirs, strict=True)]
        problems += [f"{cell.attack_label}: {problem}" for problem in filed if problem][:1]
    return problems


def _file(store: Store, setting: Setting, cell: Cell, shard: int, found: Evaluated) -> str:
    """Write what was computed, the images first: a kill between the two leaves nothing that looks complete.

    Returns what keeps it from being written, nothing where it was.
    """
    known = store.has(cell, shard)
    if _keeps(setting, cell):
        if known and not same_outcomes(found.outcomes, store.read(cell, shard)[0]):
            return (
                f"{store.place(cell, shard)} holds other outcomes than this machine computes, so its "
                "images cannot be kept; delete it and run again"
            )
        assert found.images is not None
        write_images(store.images_path(cell, shard), found.images)
    if known:
        store.stage_checkpoints(cell, shard).clear()
    else:
        store.write(cell, shard, found.outcomes, found.budget)
    return ""


def _keeps(setting: Setting, cell: Cell) -> bool:
    """Whether the attacked images are kept: where asked for, and where the next radius goes on from them."""
    return (setting.keep_images or cell.nested) and not cell.certificate


def _evaluate(
    setting: Setting, store: Store, cells: Sequence[Cell], shards: Sequence[int], forward_size: int
) -> list[list[Evaluated]]:
    """Per cell what was found in each shard."""
    if not cells[0].packed:
        return [[_single(setting, store, cell, shard) for shard in shards] for cell in cells]
    cell, here = cells[0], [index for shard in shards for index in cells[0].images_of(shard)]
    data, net = _data_and_model(setting, cell)
    found = evaluate_packed(
        net,
        [(attack[one.attack].traits.ascent_of(one.attack_options), float(one.eps)) for one in cells],
        examples_of(data, here, cell.seed),
        classes=data.images.classes,
        batch_size=max(cell.batch, min(forward_size, len(here))),
        forward_size=max(cell.batch, forward_size),
        space=space_of(protocol[cell.protocol]),
        keep_images=any(_keeps(setting, one) for one in cells),
    )
    sizes = [len(cell.images_of(shard)) for shard in shards]
    return [_apart(one, sizes) for one in found]


def _apart(found: Evaluated, sizes: list[int]) -> list[Evaluated]:
    """What was found in several shards at once, shard by shard; the budget in proportion to their sizes."""
    ends = np.cumsum(sizes)[:-1]
    columns = {name: np.split(column, ends) for name, column in found.outcomes.items()}
    pictures = [None] * len(sizes) if found.images is None else found.images.split(sizes)
    budgets = found.budget.shared([float(size) for size in sizes])
    return [
        Evaluated({name: parts[k] for name, parts in columns.items()}, spent, shown)
        for k, (spent, shown) in enumerate(zip(budgets, pictures, strict=True))
    ]


def _single(setting: Setting, store: Store, cell: Cell, shard: int) -> Evaluated:
    data, net = _data_and_model(setting, cell)
    batch, classes = examples_of(data, cell.images_of(shard), cell.seed), data.images.classes
    if cell.certificate:
        method = cell.attack_options.get("method", "")
        return certify(net, batch, float(cell.eps), classes=classes, batch_size=cell.batch, method=method)
    twin = smaller_radius = None
    if cell.twin is not None and cell.identity.twin is not None:
        twin = load_model(cell.twin, data, setting.device, cell.identity.twin.weights)
    if cell.smaller is not None:
        images = read_images(store.images_path(cell.smaller, shard), len(batch))
        smaller_radius = SmallerRadius(store.read(cell.smaller, shard)[0], images)
    return evaluate(
        net,
        bind(attack[cell.attack], cell.attack_options),
        batch,
        float(cell.eps),
        classes=classes,
        batch_size=cell.batch,
        space=space_of(protocol[cell.protocol]),
        checkpoint=store.stage_checkpoints(cell, shard),
        keep_images=_keeps(setting, cell),
        twin=twin,
        smaller_radius=smaller_radius,
    )


def _data_and_model(setting: Setting, cell: Cell) -> tuple[Dataset, nn.Module]:
    declared = setting.declared.get(cell.dataset)
    data = _cached_data(cell.dataset, setting.data, json.dumps(declared) if declared else "")
    return data, load_model(cell.source, data, setting.device, cell.identity.model.weights)


@lru_cache(maxsize=2)
def _cached_data(name: str, folder: Path, declared: str) -> Dataset:
    return load(name, folder, json.loads(declared) if declared else None)


_models: dict[tuple[str, str, str], nn.Module] = {}


def load_model(source: Source, data: Dataset, device: str, expected: str) -> nn.Module:
    """The trained model in eval mode on `device`; the last two, a model and its twin, are kept.

    Raises BenchError where its weights are not those of the hash `expected`, which keys the results.
    """
    weights = f"{source.checkpoint}{source.foreign}{expected}"
    place = f"{data.test_hash}{data.images}{device}"
    key = (f"{source.architecture}{sorted(source.options.items())}", weights, place)
    if key not in _models:
        while len(_models) >= 2:
            _models.pop(next(iter(_models)))
        made = (model[source.architecture], source.options)
        if source.foreign:
            net, found = foreign_model(*made, source.foreign, data.images, source.train_seed)
        else:
            net = initial_model(*made, data.images, source.train_seed)
            found = load_weights(Path(source.checkpoint), net) if source.checkpoint else weights_hash(net.state_dict())
        if found != expected:
            raise BenchError(f"model '{source.label}': its factory gives other weights each time; load fixed ones.")
        _models[key] = net.to(device).eval()
    return _models[key]

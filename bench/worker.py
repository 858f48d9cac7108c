"""Computing one shard: in this process, or in a worker that only gets picklable facts."""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks.cascade import bind
from attacks.contract import ContractError
from attacks.draws import Draws
from bench.cells import Cell, Source
from bench.certificates import certify
from bench.data.load import Dataset, load
from bench.environment import make_exact
from bench.errors import BenchError, first_line
from bench.kept_images import read_images, write_images
from bench.outcomes import Budget, Earlier, Outcomes, evaluate, same_outcomes
from bench.plugins import load_plugins
from bench.registry import attack, model, protocol
from bench.spaces import space_of
from bench.store import Store
from bench.training.checkpoint import load_weights, weights_hash
from bench.training.foreign import fill_foreign
from bench.training.loop import initial_model

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
class Result:
    """How one shard ended; `message` says why it failed."""

    state: State
    message: str = ""


def start_worker(setting: Setting) -> None:
    """Prepare a worker process: one thread, its plugins, and an end as soon as its parent is gone."""
    torch.set_num_threads(1)
    make_exact()
    parent = parent_process()
    if parent is not None:
        # A parent killed by SIGKILL cannot tell its workers; without this they would wait for ever.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    load_plugins(setting.plugins)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def compute(setting: Setting, cell: Cell, shard: int) -> Result:
    """Compute and store one shard unless it is there or another process is at it.

    A model or attack that raises fails alone: its message comes back as a result. A full disk or a
    damaged store concerns every cell and raises BenchError.
    """
    store = Store(setting.store)
    lock = store.claim(cell, shard)
    if lock is None:
        return Result("busy")
    try:
        if store.has(cell, shard, setting.keep_images):
            return Result("done")
        if cell.smaller is not None and not store.has(cell.smaller, shard):
            return Result("busy")  # it goes on from there
        try:
            outcomes, budget, images = _evaluate(setting, store, cell, shard)
        except Exception as error:
            _models.clear()  # whatever failed may have left its mark on the model
            if isinstance(error, BenchError | ContractError):
                return Result("failed", str(error))
            if setting.debug:
                raise
            return Result("failed", first_line(error))
        return _file(store, setting, cell, shard, outcomes, budget, images)
    finally:
        store.release(lock)


def _file(
    store: Store, setting: Setting, cell: Cell, shard: int, outcomes: Outcomes, budget: Budget, images: list[Tensor]
) -> Result:
    """Write what was computed, the images first: a kill between the two leaves nothing that looks complete."""
    known = store.has(cell, shard)
    if _keeps(setting, cell):
        if known and not same_outcomes(outcomes, store.read(cell, shard)[0]):
            return Result(
                "failed",
                f"shard {store.shard_path(cell, shard)} holds other outcomes than this machine computes, so its "
                "images cannot be kept; delete it and run again",
            )
        write_images(store.images_path(cell, shard), images)
    if known:
        store.shelf(cell, shard).clear()
    else:
        store.write(cell, shard, outcomes, budget)
    return Result("done")


def _keeps(setting: Setting, cell: Cell) -> bool:
    """Whether the attacked images are kept: where asked for, and where the next radius goes on from them."""
    return (setting.keep_images or cell.nested) and not cell.certificate


def _evaluate(setting: Setting, store: Store, cell: Cell, shard: int) -> tuple[Outcomes, Budget, list[Tensor]]:
    """Outcomes, what they took, and the attacked images where they are to be kept."""
    data = _data(setting, cell.dataset)
    net = load_model(cell.source, data, setting.device, cell.identity["model"]["weights"])
    twin = None
    if cell.twin is not None:
        twin = load_model(cell.twin, data, setting.device, cell.identity["twin"]["weights"])
    earlier = None
    if cell.smaller is not None:
        kept = read_images(store.images_path(cell.smaller, shard), len(cell.rows(shard)))
        earlier = Earlier(store.read(cell.smaller, shard)[0], kept)
    rows = cell.rows(shard)
    x, y = data.x_test[rows.start : rows.stop], data.y_test[rows.start : rows.stop]
    if cell.certificate:
        return *certify(net, data.images.classes, x, y, float(cell.eps), rows, cell.batch), []

    def draws(indices: Sequence[int]) -> Draws:
        return Draws(cell.seed, data.test_hash, indices)

    images: list[Tensor] = []
    outcomes, budget = evaluate(
        net,
        data.images.classes,
        bind(attack[cell.attack], cell.attack_options),
        x,
        y,
        float(cell.eps),
        rows,
        draws,
        cell.batch,
        space_of(protocol[cell.protocol]),
        store.shelf(cell, shard),
        images if _keeps(setting, cell) else None,
        twin,
        earlier,
    )
    return outcomes, budget, images


def _data(setting: Setting, name: str) -> Dataset:
    declared = setting.declared.get(name)
    return _cached_data(name, setting.data, json.dumps(declared) if declared else "")


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
        entry, foreign = model[source.architecture], source.foreign
        images = foreign.images(data.images) if foreign else data.images
        net = initial_model(entry, source.options, images, source.train_seed)
        if foreign:
            found = fill_foreign(net, foreign, entry)
        elif source.checkpoint:
            found = load_weights(Path(source.checkpoint), net)
        else:
            found = weights_hash(net.state_dict())
        if found != expected:
            raise BenchError(f"model '{source.label}': its factory gives other weights each time; load fixed ones.")
        _models[key] = net.to(device).eval()
    return _models[key]

"""Running a matrix: train what is missing, compute what the store lacks, write the manifests."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bench.data.load import Dataset
from bench.errors import BenchError, first_line_or_traceback
from bench.execution.beforehand import RowError, look_before
from bench.execution.matrix_rows import Matrix, PlannedRow, ReadyRow, Row, failed
from bench.execution.plan_cells import with_stored_cells
from bench.execution.tasks import Task, row_tasks
from bench.execution.time_left import Forecast
from bench.execution.worker import Setting, TaskResult, compute, start_worker
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.store.store import Store
from bench.system.environment import cores, pick_device
from bench.system.progress import Progress, progress, say
from bench.system.threads import threads
from bench.training.checkpoint_choice import exact_name, trained
from bench.training.job_identity import Job, make_job
from bench.training.loop import train

Submit = Callable[[Task], "Future[TaskResult]"]


def make_setting(config: Config, device: torch.device, debug: bool) -> Setting:
    """What workers need to know of a configuration."""
    declared = {name: entry.model_dump(mode="json") for name, entry in config.datasets.items()}
    keep = config.run.keep_adversarial
    return Setting(config.paths.store, config.paths.data, declared, tuple(config.plugins), str(device), keep, debug)


def train_missing(matrix: Matrix, config: Config, device: torch.device, *, allowed: bool, debug: bool) -> Matrix:
    """Train the models without a checkpoint, and say so. A model that raises fails its own row alone."""

    def trained_row(row: Row) -> Row:
        if not isinstance(row, PlannedRow):
            return row
        data = matrix.data[row.dataset]
        for job in row.jobs:
            if not trained(job, config.paths.checkpoints) and (
                why := _train(job, data, config, device, allowed, debug)
            ):
                return failed(row, why)
        return row

    return matrix.with_rows([trained_row(row) for row in matrix.rows])


def _train(job: Job, data: Dataset, config: Config, device: torch.device, allowed: bool, debug: bool) -> str:
    """Train one model; returns what kept it from being trained, in one line."""
    if not allowed:
        usual = make_job(parse_model(job.label), data, config, job.seed)
        seed = f" --train-seed {job.seed}" if job.seed else ""
        return (
            f"no checkpoint of {job.label} on {data.name}; run `python -m bench train --models "
            f"'{exact_name(usual, job)}' --dataset {data.name}{seed}`, or leave --no-train out."
        )
    say(f"no checkpoint of {job.label} on {data.name} (seed {job.seed}): training it now")
    try:
        train(job, data, config.paths.checkpoints, device, config.train)
    except BenchError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return f"{job.label} failed in training: {first_line_or_traceback(error, debug)}."
    return ""


def run_matrix(
    matrix: Matrix, config: Config, request: dict[str, Any], *, no_train: bool, debug: bool
) -> tuple[Matrix, Store]:
    """Fill the store with every cell of the matrix.

    Args:
        request: what the user asked for, kept in the manifests.

    Returns:
        The matrix with its cells, or with what kept rows from having (all of) them; and the store.
    """
    device = pick_device(config.run.device)
    store = Store(config.paths.store)
    matrix = train_missing(matrix, config, device, allowed=not no_train, debug=debug)
    matrix = with_stored_cells(matrix, config, device.type)
    setting = make_setting(config, device, debug)
    looked = [_looked_at(row, matrix, config, store, setting) for row in matrix.rows]
    matrix = matrix.with_rows([row for row, _ in looked])
    seen = {id(row): facts for row, facts in looked}
    most = _workers(config.run.workers, device)
    found = {
        id(row): row_tasks(row, matrix, config, setting.device, store, most)
        for row in matrix.rows
        if isinstance(row, ReadyRow)
    }
    tasks = [task for theirs, _ in found.values() for task in theirs]
    failures = _compute_all(tasks, setting, min(most, len(tasks))) if tasks else {}

    def finished(row: Row) -> Row:
        if not isinstance(row, ReadyRow):
            return row
        at_most = found[id(row)][1]
        for cell in (*row.cells, *row.certificates):
            if not store.missing(cell, config.run.examples):
                forward = {"rows_per_forward": at_most} if cell.packed and at_most else {}
                store.finish(cell, config.run.examples, request | forward, seen[id(row)])
        return replace(row, failure=failures.get(id(row), ""))

    return matrix.with_rows([finished(row) for row in matrix.rows]), store


def _looked_at(
    row: Row, matrix: Matrix, config: Config, store: Store, setting: Setting
) -> tuple[Row, Mapping[str, Any]]:
    """The row, failed where its model cannot be evaluated, and what its manifests are to say of the model."""
    if not isinstance(row, ReadyRow):
        return row, {}
    try:
        return row, look_before(row, matrix.data[row.dataset], store, config.run.examples, setting)
    except RowError as error:
        return failed(row.plan, str(error)), {}


def _workers(asked: int, device: torch.device) -> int:
    return asked or (1 if device.type == "cuda" else cores())


def _compute_all(tasks: Sequence[Task], setting: Setting, workers: int) -> Mapping[int, str]:
    """Compute every task. Returns what failed first in a row, by the row's id."""
    forecast = Forecast([(task.kind, task.seconds) for task in tasks], workers)
    with (
        progress(len(tasks), f"attack ({workers} worker{'s' if workers > 1 else ''})") as bar,
        _pool(setting, workers) as submit,
    ):
        bar.advance(0, left=forecast.seconds())
        computation = _Computation(submit, workers, bar, forecast)
        waiting = list(tasks)
        while waiting:
            busy = computation.try_all(waiting)
            if len(busy) == len(waiting):
                time.sleep(1.0)  # all of what is left is in another process' hands
            waiting = busy
    return computation.failures


class _Computation:
    """Tasks handed to workers, and what became of them.

    Attributes:
        failures: what failed first in a row, by the row's id.
    """

    def __init__(self, submit: Submit, workers: int, bar: Progress, forecast: Forecast) -> None:
        self.failures: dict[int, str] = {}
        self._submit = submit
        self._most = workers + 1 if workers > 1 else 1
        self._bar = bar
        self._forecast = forecast
        self._failed: set[str] = set()  # keys of cells

    def try_all(self, tasks: Sequence[Task]) -> list[Task]:
        """Try every task once; returns those that have to wait for another process."""
        queue = iter(tasks)
        busy: list[Task] = []
        running: dict[Future[TaskResult], Task] = {}
        while True:
            for task in queue:
                if self._is_hopeless(task):
                    continue
                running[self._submit(task)] = task
                if len(running) >= self._most:
                    break
            if not running:
                return busy
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                if not self._take(task, future.result()):
                    busy.append(task)

    def _is_hopeless(self, task: Task) -> bool:
        """Whether one of its cells failed in another shard, or the cell that one goes on from."""
        needed = {cell.key() for cell in task.cells} | {cell.smaller.key() for cell in task.cells if cell.smaller}
        if not needed & self._failed:
            return False
        self._failed.update(cell.key() for cell in task.cells)
        self._forecast.saw(task.kind, task.seconds, None)
        self._bar.skip(1)
        return True

    def _take(self, task: Task, result: TaskResult) -> bool:
        """Note how a task ended; False where another process is at it."""
        if result.state == "busy":
            return False
        self._forecast.saw(task.kind, task.seconds, result.seconds)
        if result.state == "failed":
            self._failed.update(cell.key() for cell in task.cells)
            self.failures.setdefault(id(task.row), f"{task.row.label}, {result.message}")
            self._bar.skip(1)
        else:
            self._bar.advance(note=f"{task.row.label} on {task.row.dataset}", left=self._forecast.seconds())
        return True


@contextmanager
def _pool(setting: Setting, workers: int) -> Iterator[Submit]:
    """Yields submit(task) -> Future; with one worker the work is done here, in this process."""
    if workers == 1:
        with threads(1):
            start_worker(setting)
            yield lambda task: _now(setting, task)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(setting,))
    try:
        yield lambda task: pool.submit(compute, setting, task.cells, task.shards, task.forward_size)
    except BrokenProcessPool as error:
        raise BenchError(
            "a worker process died (out of memory?); what was finished is kept: run again with --workers 1."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _now(setting: Setting, task: Task) -> "Future[TaskResult]":
    future: Future[TaskResult] = Future()
    try:
        future.set_result(compute(setting, task.cells, task.shards, task.forward_size))
    except BaseException as error:
        future.set_exception(error)
    return future

"""Running a matrix: train what is missing, compute what the store lacks, write the manifests."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from bench.errors import BenchError, first_line_or_traceback
from bench.execution.forecast import Forecast
from bench.execution.plan import Matrix, add_stored_cells
from bench.execution.tasks import Task, row_tasks
from bench.execution.worker import Setting, TaskResult, compute, start_worker
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.store.store import Store
from bench.system.environment import pick_device
from bench.system.progress import Progress, progress, say
from bench.training.checkpoint_choice import exact_name, trained
from bench.training.job import make_job
from bench.training.loop import threads, train


def make_setting(config: Config, device: torch.device, debug: bool) -> Setting:
    """What workers need to know of a configuration."""
    declared = {name: entry.model_dump(mode="json") for name, entry in config.datasets.items()}
    keep = config.run.keep_adversarial
    return Setting(config.paths.store, config.paths.data, declared, tuple(config.plugins), str(device), keep, debug)


def train_missing(matrix: Matrix, config: Config, device: torch.device, allowed: bool, debug: bool) -> None:
    """Train the models without a checkpoint, and say so. A model that raises fails its own row alone."""
    for row in matrix.rows:
        jobs = [] if row.job is None else [row.job, *row.twins.values()]
        for job in jobs:
            if row.failure or trained(job, config.paths.checkpoints):
                continue
            if not allowed:
                usual = make_job(parse_model(job.label), matrix.data[row.dataset], config, job.seed)
                seed = f" --train-seed {job.seed}" if job.seed else ""
                row.failure = (
                    f"no checkpoint of {job.label} on {row.dataset}; run `python -m bench train --models "
                    f"'{exact_name(usual, job)}' --dataset {row.dataset}{seed}`, or leave --no-train out."
                )
                continue
            say(f"no checkpoint of {job.label} on {row.dataset} (seed {job.seed}): training it now")
            try:
                train(job, matrix.data[row.dataset], config.paths.checkpoints, device, config.train)
            except BenchError as error:
                row.failure = str(error)
            except (Exception, SystemExit) as error:
                row.failure = f"{job.label} failed in training: {first_line_or_traceback(error, debug)}."


def run_matrix(matrix: Matrix, config: Config, request: dict[str, Any], no_train: bool, debug: bool) -> Store:
    """Fill the store with every cell of the matrix; rows that fail carry their reason.

    Args:
        request: what the user asked for, kept in the manifests.
    """
    device = pick_device(config.run.device)
    store = Store(config.paths.store)
    train_missing(matrix, config, device, not no_train, debug)
    add_stored_cells(matrix, config, device.type)
    setting = make_setting(config, device, debug)
    tasks, rows, most = [], dict[int, int](), _workers(config.run.workers, device)
    for row in matrix.rows:
        theirs, rows[id(row)] = row_tasks(row, matrix, config, setting.device, store, most)
        tasks += theirs
    if tasks:
        _compute_all(tasks, setting, min(most, len(tasks)))
    for row in matrix.rows:
        for cell in (*row.cells, *row.certificates):
            if not store.missing(cell, config.run.examples):
                at_most = {"rows_per_forward": rows[id(row)]} if cell.packed and rows[id(row)] else {}
                store.finish(cell, config.run.examples, request | at_most)
    return store


def _workers(asked: int, device: torch.device) -> int:
    return asked or (1 if device.type == "cuda" else len(os.sched_getaffinity(0)))


def _compute_all(tasks: list[Task], setting: Setting, workers: int) -> None:
    waiting, failed = list(tasks), set[str]()
    forecast = Forecast([(task.kind, task.seconds) for task in tasks], workers)
    with (
        progress(len(tasks), f"attack ({workers} worker{'s' if workers > 1 else ''})") as bar,
        _pool(setting, workers) as submit,
    ):
        bar.advance(0, left=forecast.seconds())
        while waiting:
            busy = _pass(waiting, failed, submit, workers, bar, forecast)
            if len(busy) == len(waiting):
                time.sleep(1.0)  # all of what is left is in another process' hands
            waiting = busy


def _pass(
    tasks: list[Task], failed: set[str], submit: Any, workers: int, bar: Progress, forecast: Forecast
) -> list[Task]:
    """Try every task once; returns those that have to wait. Keys of cells that failed are added to `failed`."""
    queue = iter(tasks)
    busy: list[Task] = []
    running: dict[Future[TaskResult], Task] = {}
    while True:
        for task in queue:
            if any(cell.key() in failed or (cell.smaller and cell.smaller.key() in failed) for cell in task.cells):
                failed.update(cell.key() for cell in task.cells)
                forecast.saw(task.kind, task.seconds, None)
                bar.skip(1)
                continue
            running[submit(task)] = task
            if len(running) >= workers + 1 or workers == 1:
                break
        if not running:
            return busy
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            result: TaskResult = future.result()
            if result.state == "busy":
                busy.append(task)
                continue
            forecast.saw(task.kind, task.seconds, result.seconds)
            if result.state == "failed":
                failed.update(cell.key() for cell in task.cells)
                task.row.failure = task.row.failure or f"{task.row.label}, {result.message}"
                bar.skip(1)
            else:
                bar.advance(note=f"{task.row.label} on {task.row.dataset}", left=forecast.seconds())


@contextmanager
def _pool(setting: Setting, workers: int) -> Iterator[Any]:
    """Yields submit(task) -> Future; with one worker the work is done here, in this process."""
    if workers == 1:
        with threads(1):
            start_worker(setting)
            yield lambda task: _now(setting, task)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(setting,))
    try:
        yield lambda task: pool.submit(compute, setting, task.cells, task.shards, task.rows)
    except BrokenProcessPool as error:
        raise BenchError(
            "a worker process died (out of memory?); what was finished is kept: run again with --workers 1."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _now(setting: Setting, task: Task) -> "Future[TaskResult]":
    future: Future[TaskResult] = Future()
    try:
        future.set_result(compute(setting, task.cells, task.shards, task.rows))
    except BaseException as error:
        future.set_exception(error)
    return future

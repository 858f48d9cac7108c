"""AutoAttack by our engine beside pyautoattack: verdicts image by image, and time.

    python -m tests.benchmarks.autoattack --models 'resnet20,resnet20+pgd-at[eps=8/255]' --dataset cifar10 --eps 8

prints a table of models and one of stages (models are trained first where there is no checkpoint). Each engine has a
process with one thread, ours prepared as the program prepares its workers (`bench.system.memory`), the other as
Python starts. Times are medians of the processes' CPU time, which a busy machine disturbs less than the clock on the
wall; engines alternate. Both run through the same contract and cascade, on the same model and the same images.

With `--cores 2` each engine has two, in its own way: ours a process for half of the images each, as `bench run
--workers 2` shares them out, pyautoattack one process with two of torch's threads. Then times are the wall's, of two
processes the slower one's, and the machine should have nothing else to do.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from bench.attacks.autoattack import ATTACKS
from bench.attacks.core.cascade import Cascade, CascadeState, bind
from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.data.load import as_pixels, load
from bench.evaluation.budget import Budget, Counted
from bench.registry import attack
from bench.settings.radii import parse_eps, show_eps
from bench.settings.specs import split_list
from bench.system.memory import prepare_memory
from tests.benchmarks.trained import options, trained

OURS = "compact"
ENGINES = ("reference", OURS)

Pools = Mapping[str, Sequence[ProcessPoolExecutor]]  # each engine's processes


@dataclass(frozen=True)
class Run:
    """One engine on all images: who was right clean and who still stands, (N,), seconds per stage and of all, and
    what was asked of the model."""

    clean: Tensor
    standing: Tensor
    stages: dict[str, float]
    seconds: float
    budget: Budget


def once(
    net: nn.Module, x: Tensor, y: Tensor, eps: float, draws: Draws, options: dict[str, Any], clock: Callable[[], float]
) -> Run:
    """The whole attack on one batch."""
    budget, reached = Budget(), CascadeState()
    marks = [clock()]
    entry = attack["autoattack"]
    cascade = bind(entry, entry.resolve(options))
    assert isinstance(cascade, Cascade)
    follow = partial(cascade.resume, reached=reached, after=lambda: marks.append(clock()))
    model = Counted(net, budget, net(x[:1]).shape[1]).eval()
    found = run_attack(follow, model, x, y, torch.full((len(x),), eps), draws)
    spent = {name: after - before for name, before, after in zip(cascade.stages, marks, marks[1:], strict=False)}
    with torch.no_grad():
        clean = net(x).argmax(1) == y
        return Run(clean, clean & (net(found).argmax(1) == y), spent, sum(spent.values()), budget)


def prepare(engine: str, cores: int) -> None:
    """Begin an engine's own process."""
    torch.set_num_threads(1 if engine == OURS else cores)
    if engine == OURS:
        prepare_memory()


def attempt(engine: str, name: str, part: slice, given: argparse.Namespace) -> Run:
    """One run on a part of the images, in the engine's process."""
    data = load(given.dataset, given.data_dir)
    x, y = as_pixels(data.x_test[part]), data.y_test[part]
    net = trained(name, given.dataset, given.data_dir, given.checkpoints)[0].requires_grad_(False)
    options = {**budgets(given), "engine": engine}
    draws = Draws(0, data.test_hash, range(*part.indices(len(data.x_test))))
    clock = time.process_time if given.cores == 1 else time.monotonic
    return once(net, x, y, float(parse_eps(given.eps)), draws, options, clock)


def together(engine: str, pools: Sequence[ProcessPoolExecutor], name: str, given: argparse.Namespace) -> Run:
    """One run on all images, shared out among the engine's processes; where there are several the slowest counts."""
    each = -(-given.examples // len(pools))
    parts = [slice(first, min(first + each, given.examples)) for first in range(0, given.examples, each)]
    asked = [pool.submit(attempt, engine, name, part, given) for pool, part in zip(pools, parts, strict=False)]
    runs, budget = [one.result() for one in asked], Budget()
    for run in runs:
        budget.add(run.budget)
    return Run(
        torch.cat([run.clean for run in runs]),
        torch.cat([run.standing for run in runs]),
        {stage: max(run.stages.get(stage, 0.0) for run in runs) for stage in runs[0].stages},
        max(run.seconds for run in runs),
        budget,
    )


def budgets(given: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(given, name) for name in ("attacks", "iterations", "targets", "queries")}


def compare(pools: Pools, name: str, given: argparse.Namespace) -> dict[str, list[Run]]:
    """The runs of each engine, in turn; each round's seconds are printed as it ends."""
    runs: dict[str, list[Run]] = {engine: [] for engine in pools}
    for number in range(given.repeats):
        for engine, own in pools.items():
            runs[engine].append(together(engine, own, name, given))
        theirs, ours = (runs[engine][-1].seconds for engine in ENGINES)
        print(
            f"round {number + 1}: {theirs:.1f} s, ours {ours:.1f} s, {theirs / ours:.2f}", file=sys.stderr, flush=True
        )
    return runs


def summary(runs: dict[str, list[Run]]) -> list[float]:
    """Clean accuracy, accuracy under both, share of images they agree on, in %; seconds of both, and their ratio."""
    standing = [runs[engine][0].standing for engine in ENGINES]
    clean = runs[ENGINES[0]][0].clean.float().mean()
    shares = (clean, *(one.float().mean() for one in standing), (standing[0] == standing[1]).float().mean())
    times = [statistics.median(run.seconds for run in runs[engine]) for engine in ENGINES]
    return [*(100 * float(share) for share in shares), *times, times[0] / times[1]]


def stage_by_stage(runs: dict[str, list[Run]]) -> list[list[Any]]:
    """Seconds per stage, then forwards and backwards, of both, and their ratio."""
    lines: list[list[Any]] = []
    for stage in runs[OURS][0].stages:
        times = [statistics.median(run.stages[stage] for run in runs[engine]) for engine in ENGINES]
        lines.append([f"{stage}, s", *times])
    for what in ("forwards", "backwards"):
        lines.append([f"{what}, thousands", *(getattr(runs[engine][0].budget, what) / 1e3 for engine in ENGINES)])
    return [[*line, line[1] / line[2] if line[2] else None] for line in lines]


def main() -> None:
    parser = options("resnet20,resnet20+pgd-at", __doc__, dataset="digits", repeats=3)
    parser.add_argument("--eps", default="8", help="in 255ths of the pixel range")
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--targets", type=int, default=9)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--attacks", default="+".join(ATTACKS))
    given = parser.parse_args()
    load_before, rows, parts = os.getloadavg()[0], [], []
    context = multiprocessing.get_context("spawn")
    pools = {
        engine: [
            ProcessPoolExecutor(1, context, prepare, (engine, given.cores))
            for _ in range(given.cores if engine == OURS else 1)
        ]
        for engine in ENGINES
    }
    for name in split_list(given.models):
        trained(name, given.dataset, given.data_dir, given.checkpoints)
        runs = compare(pools, name, given)
        rows.append([name, len(runs[ENGINES[0]][0].clean), *summary(runs)])
        parts += [[name, *part] for part in stage_by_stage(runs)]
    for own in pools.values():
        for pool in own:
            pool.shutdown()
    print(f"{given.dataset}, ε = {show_eps(parse_eps(given.eps))}, {budgets(given)}, torch {torch.__version__},")
    clock = "one core, CPU time" if given.cores == 1 else f"{given.cores} cores, wall-clock time"
    print(f"{clock}, medians of {given.repeats}\n")
    head = ["model", "n", "clean %", "pyautoattack %", "ours %", "agree %", "pyautoattack s", "ours s", "ratio"]
    print(tabulate(rows, head, tablefmt="github", floatfmt=("", "d", ".1f", ".1f", ".1f", ".1f", ".1f", ".1f", ".2f")))
    print()
    print(tabulate(parts, ["model", "", "pyautoattack", "ours", "ratio"], tablefmt="github", floatfmt=".2f"))
    print(f"\nload average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()

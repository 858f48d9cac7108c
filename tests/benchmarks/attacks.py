"""The paper's matrix, two attacks at four radii: our engine beside loops over torchattacks and foolbox.

    python -m tests.benchmarks.attacks --model lyadeq --dataset mnist --data-dir data --checkpoints results/checkpoints

prints one table for one model, trained first if there is no checkpoint. Every side attacks the same images with the
same weights and counts robust accuracy, in a process of its own with one thread: ours prepared as the program prepares
its workers (`bench.system.memory`), the others as Python starts. They take turns, and each turn begins with 250
images that are not timed, since a process that has waited is slower at first. Times are medians of the processes' CPU
time, which a busy machine disturbs less than the clock on the wall. The floor is what the engine's own gradients and
forwards would take if nothing else took time: their number, times the time of one in one batch.

With `--cores 2` every side has two, each its own way: ours a process for half of the images each, as `bench run
--workers 2` shares them out, the loops one process with two of torch's threads. Then times are the wall's, and the
machine should have nothing else to do.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torchattacks
from foolbox.attacks.basic_iterative_method import LinfBasicIterativeAttack
from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
from foolbox.models.pytorch import PyTorchModel
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.utils import parametrize

import bench.models.equilibrium.gradient as gradient_module
from bench.attacks.core.contract import frozen
from bench.attacks.core.sign_ascent import input_gradient
from bench.attacks.protocols import paper
from bench.data.load import Dataset, as_pixels
from bench.models.inference.folding import folded
from bench.settings.specs import split_list
from bench.system.memory import prepare_memory
from bench.tables.table_lines import robust_right
from tests.benchmarks.engine import BATCH, rows_for, run_matrix
from tests.benchmarks.trained import options, trained
from tests.parts import equilibrium

RADII = [Fraction(k, 255) for k in (2, 4, 6, 8)]
ALPHA = 1 / 255
OURS, FLOOR, TEXTBOOK = "ours", "floor", "torchattacks, loop, Algorithm 1 and LU"

Robust = dict[tuple[str, float], float]  # robust accuracy, per attack and radius


@dataclass(frozen=True)
class Took:
    """What a side found, in how many seconds; of ours also forwards and backwards."""

    seconds: float
    robust: Robust
    forwards: int = 0
    backwards: int = 0


def ours(net: nn.Module, data: Dataset, images: range, rows: int) -> Took:
    ran = run_matrix(net, data, RADII, images, rows)
    robust = {name: float(robust_right(one.outcomes).mean()) for name, one in ran.found.items()}
    budgets = [one.budget for one in ran.found.values()]
    return Took(ran.seconds, robust, sum(b.forwards for b in budgets), sum(b.backwards for b in budgets))


def loop(search: Callable[[nn.Module, str, float, int, Tensor, Tensor], Tensor], net: nn.Module, x: Tensor, y: Tensor,
         batch: int) -> Took:  # fmt: skip
    """What a user writes around a library's attacks: every attack, every radius, every batch."""
    robust, start, each = Robust(), time.process_time(), list(zip(x.split(batch), y.split(batch), strict=True))
    with torch.no_grad():
        clean = torch.cat([net(images).argmax(1) == labels for images, labels in each])
    for radius in RADII:
        for name, given in paper(radius).items():
            right = []
            for images, labels in each:
                adversarial = search(net, name, float(radius), given["steps"], images, labels)
                with torch.no_grad():
                    right.append(net(adversarial).argmax(1) == labels)
            robust[name, float(radius)] = float((torch.cat(right) & clean).float().mean())
    return Took(time.process_time() - start, robust)


def by_torchattacks(net: nn.Module, name: str, eps: float, steps: int, x: Tensor, y: Tensor) -> Tensor:
    kind = {"ifgsm": torchattacks.BIM, "pgd": torchattacks.PGD}[name]
    return kind(net, eps=eps, alpha=ALPHA, steps=steps)(x, y)


def by_foolbox(net: nn.Module, name: str, eps: float, steps: int, x: Tensor, y: Tensor) -> Tensor:
    kind = {"ifgsm": LinfBasicIterativeAttack, "pgd": LinfProjectedGradientDescentAttack}[name]
    model = PyTorchModel(net, bounds=(0, 1), device=x.device)
    return kind(abs_stepsize=ALPHA, steps=steps, random_start=name == "pgd")(model, x, y, epsilons=[eps])[1][0]


LOOPS = {
    "torchattacks, loop": by_torchattacks,
    "foolbox, loop": by_foolbox,
    TEXTBOOK: by_torchattacks,
}


@contextmanager
def textbook(net: nn.Module) -> Iterator[None]:
    """The same model solved as the paper's Algorithm 1 has it: Anderson at every step, and LU for the adjoint."""
    layer, few = equilibrium(net), gradient_module.FEW
    base = layer.settings[False]
    layer.settings[False], gradient_module.FEW = replace(base, method="anderson"), 10**9
    try:
        yield
    finally:
        layer.settings[False], gradient_module.FEW = base, few


def floor(net: nn.Module, data: Dataset, batch: int, rows: int, repeats: int = 3) -> tuple[float, float]:
    """CPU seconds per image of a verdict's forward, and of a gradient of the folded model."""
    many = max(1, rows // batch) * batch
    x, y, quick = as_pixels(data.x_test[:many]), data.y_test[:many], folded(net)
    forward, gradient = list[float](), list[float]()
    with frozen(net), frozen(quick), parametrize.cached():
        for _ in range(repeats):
            start = time.process_time()
            with torch.no_grad():
                net(x)
            middle = time.process_time()
            input_gradient(quick, x, y)
            forward.append(middle - start)
            gradient.append(time.process_time() - middle)
    return statistics.median(forward) / many, statistics.median(gradient) / many


@dataclass(frozen=True)
class Side:
    """What a side's process works with; `rows`: images per forward of ours, at most."""

    net: nn.Module
    data: Dataset
    rows: int


_side: list[Side] = []


def prepare(side: str, given: argparse.Namespace) -> None:
    """Load model and data in a side's own process."""
    torch.set_num_threads(1 if side == OURS else given.cores)
    if side == OURS:
        prepare_memory()
    net, data = trained(given.model, given.dataset, given.data_dir, given.checkpoints)
    _side.append(Side(net, data, rows_for(net, data, RADII) if side == OURS else 0))


def measure(side: str, images: range, batch: int) -> Took:
    """One run of a side on these images, in its process."""
    [have] = _side
    if side == OURS:
        return ours(have.net, have.data, images, have.rows)
    cut = slice(images.start, images.stop)
    x, y = as_pixels(have.data.x_test[cut]), have.data.y_test[cut]
    if side == TEXTBOOK:
        with textbook(have.net):
            return loop(LOOPS[side], have.net, x, y, batch)
    return loop(LOOPS[side], have.net, x, y, batch)


def measure_floor(batch: int) -> tuple[int, tuple[float, float]]:
    """Images per forward, and `floor`, in our side's process."""
    [have] = _side
    return have.rows, floor(have.net, have.data, batch, have.rows)


def together(side: str, pools: Sequence[ProcessPoolExecutor], count: int, batch: int, *, wall: bool) -> Took:
    """One run of a side, its images shared out among its processes; in seconds of the wall's clock or the CPU's."""
    each, start = -(-count // len(pools)), time.monotonic()
    parts = [range(first, min(first + each, count)) for first in range(0, count, each)]
    asked = [pool.submit(measure, side, images, batch) for pool, images in zip(pools, parts, strict=True)]
    took = [one.result() for one in asked]
    seconds = time.monotonic() - start if wall else sum(one.seconds for one in took)
    robust = {
        name: sum(one.robust[name] * len(images) for one, images in zip(took, parts, strict=True)) / count
        for name in took[0].robust
    }
    forwards, backwards = sum(one.forwards for one in took), sum(one.backwards for one in took)
    return Took(seconds, robust, forwards, backwards)


def main() -> None:
    parser = options("lyadeq", __doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=BATCH, help="images per forward of the loops")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--libraries", default="torchattacks,foolbox", help="whose loops")
    given = parser.parse_args()
    net, data = trained(given.model, given.dataset, given.data_dir, given.checkpoints)
    count = min(given.examples, len(data.x_test))
    loops = [side for side in LOOPS if side.split(",")[0] in split_list(given.libraries)]
    sides = [OURS, *(side for side in loops if side != TEXTBOOK or hasattr(net.body, "equilibrium"))]
    context, load = multiprocessing.get_context("spawn"), os.getloadavg()[0]
    own = {
        side: [
            ProcessPoolExecutor(1, context, prepare, (side, given)) for _ in range(given.cores if side == OURS else 1)
        ]
        for side in sides
    }
    found: dict[str, list[Took]] = {side: [] for side in sides}
    each = list[tuple[float, float]]()
    for _ in range(given.repeats):
        for side, pools in own.items():
            for images in (BATCH, count):
                took = together(side, pools, images, given.batch, wall=given.cores > 1)
            found[side].append(took)
        most, costs = own[OURS][0].submit(measure_floor, BATCH).result()
        each.append(costs)
    did, (forward, gradient) = found[OURS][0], map(statistics.median, zip(*each, strict=True))
    for pools in own.values():
        for pool in pools:
            pool.shutdown()
    times = {side: statistics.median(took.seconds for took in runs) for side, runs in found.items()}
    times[FLOOR] = ((did.forwards - did.backwards) * forward + did.backwards * gradient) / given.cores
    head = ["", "s", "× ours", *(f"{name} {255 * eps:g}" for name, eps in did.robust)]
    table = [
        [side, t, t / times[OURS], *(100 * v for v in (found[side][0].robust.values() if side in found else ()))]
        for side, t in times.items()
    ]
    clock = "one core, CPU time" if given.cores == 1 else f"{given.cores} cores, wall-clock time"
    print(f"{given.model} on {given.dataset}, {count} images; a forward of ours has {most}, a loop's {given.batch};")
    print(f"{clock}, torch {torch.__version__}, medians of {given.repeats}; robust accuracy in % by attack and 255ε\n")
    print(tabulate(table, head, tablefmt="github", floatfmt=("", ".2f", ".2f", *[".1f"] * 8)))
    print(f"\n{did.backwards / count:.1f} gradients and {(did.forwards - did.backwards) / count:.1f} forwards more an")
    print(f"image; the loops take 48 and 9. Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after.")


if __name__ == "__main__":
    main()

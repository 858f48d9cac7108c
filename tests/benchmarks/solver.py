"""Our equilibrium solvers beside torchdeq's, and a whole gradient beside the one of every-step Anderson and LU.

    python -m tests.benchmarks.solver --data-dir data --checkpoints results/checkpoints

prints the tables for MNIST `deq` (trained first if there is no checkpoint), on one thread. Times are medians
of the process's CPU time, which a busy machine disturbs less than the clock on the wall; sides alternate.

A solver that stops later than it was asked to ends with a smaller residual. So the second table asks ours for what
torchdeq's reached, less what float32 rounds: at the same residual only time and evaluations of f differ.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchdeq.solver import get_solver

import bench.models.equilibrium.gradient as gradient_module
from bench.attacks.core.sign_ascent import input_gradient
from bench.data.load import as_pixels
from bench.models.equilibrium.layer import Equilibrium
from bench.models.equilibrium.methods import SolverName
from bench.models.equilibrium.work_counter import count, counting
from tests.benchmarks.trained import options, trained
from tests.parts import equilibrium, submodule

MAX_ITER = 50
BATCHES, TOLERANCES = (1, 64, 1024), (1e-3, 1e-6)
PEERS = ("anderson", "broyden")
ROUNDING = 1e-7  # what a residual computed in float32 may be off by

Sides = dict[str, Callable[[], Tensor]]


def medians(sides: Sides, repeats: int) -> dict[str, float]:
    """CPU milliseconds of each side, the median of `repeats` rounds in which every side runs once."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, run in sides.items():
            start = time.process_time()
            run()
            spent[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}  # the first round warms up


def run_ours(layer: Equilibrium, h: Tensor, name: SolverName, tol: float) -> Tensor:
    base = layer.settings[False]
    layer.settings[False] = replace(base, method=name, tol=tol, max_iter=MAX_ITER, fallback="none")
    try:
        return layer.solve(h).z
    finally:
        layer.settings[False] = base


def run_peer(layer: Equilibrium, h: Tensor, name: str, tol: float) -> Tensor:
    def f(z: Tensor) -> Tensor:
        count(f_evaluations=len(z))
        return cast(Tensor, layer.cell(z, h))

    with torch.no_grad():
        return get_solver(name)(f, torch.zeros_like(h), max_iter=MAX_ITER, tol=tol, stop_mode="rel")[0]


def ours(batch: int) -> list[SolverName]:
    """Newton factorises a matrix per sample and step: not for large batches."""
    return ["alternating", "newton", "anderson"] if batch < max(BATCHES) else ["alternating", "anderson"]


def solvers(layer: Equilibrium, h: Tensor, tol: float) -> Sides:
    """Each side's solve."""
    sides: Sides = {f"{name} (ours)": partial(run_ours, layer, h, name, tol) for name in ours(len(h))}
    return sides | {f"{name} (torchdeq)": partial(run_peer, layer, h, name, tol) for name in PEERS}


def evaluations(run: Callable[[], Tensor]) -> float:
    """Of f, per sample."""
    with counting() as work:
        solved = run()
    return work.f_evaluations / len(solved)


def worst_residual(cell: nn.Module, z: Tensor, h: Tensor) -> float:
    """The largest ‖f(z) − z‖ / ‖f(z)‖, computed in float64."""
    exact = cell.double()
    value = exact(z.double(), h.double())
    cell.float()
    return float(((value - z.double()).norm(dim=1) / value.norm(dim=1)).max())


def compare_solvers(layer: Equilibrium, features: Tensor, repeats: int) -> None:
    rows, same = [], []
    for batch in BATCHES:
        for tol in TOLERANCES:
            h = features[:batch]
            sides = solvers(layer, h, tol)
            times = medians(sides, repeats)
            first = next(iter(times.values()))
            worst = {name: worst_residual(layer.cell, run(), h) for name, run in sides.items()}
            for name, run in sides.items():
                rows.append([batch, tol, name, times[name], times[name] / first, evaluations(run), worst[name]])
            for name in PEERS:
                theirs = f"{name} (torchdeq)"
                same += at_the_same_residual(layer, h, (batch, tol, theirs), sides[theirs], worst[theirs], repeats)
    head = ["batch", "tol", "solver", "ms", "× ours", "evaluations of f", "worst residual"]
    print(tabulate(rows, head, tablefmt="github", floatfmt=("d", ".0e", "", ".2f", ".1f", ".1f", ".1e")))
    print()
    head = ["batch", "tol", "torchdeq's", "residual", "ms", "evaluations", "ours", "residual", "ms", "evaluations"]
    formats = ("d", ".0e", "", ".1e", ".2f", ".1f", "", ".1e", ".2f", ".1f")
    print(tabulate(same, head, tablefmt="github", floatfmt=formats))


def at_the_same_residual(
    layer: Equilibrium,
    h: Tensor,
    what: tuple[int, float, str],
    peer: Callable[[], Tensor],
    reached: float,
    repeats: int,
) -> list[list[object]]:
    """One line per solver of ours, asked for the residual that torchdeq's reached."""
    lines: list[list[object]] = []
    for name in (name for name in ours(len(h)) if name != "anderson"):
        own = partial(run_ours, layer, h, name, reached - ROUNDING)
        times = medians({"theirs": peer, "ours": own}, repeats)
        residual = worst_residual(layer.cell, own(), h)
        theirs = [reached, times["theirs"], evaluations(peer)]
        lines.append([*what, *theirs, name, residual, times["ours"], evaluations(own)])
    return lines


def compare_gradients(net: nn.Module, x: Tensor, y: Tensor, repeats: int) -> None:
    """∂ cross-entropy/∂x of one batch, as an attack takes it at every step."""
    layer = equilibrium(net)
    base, few = layer.settings[False], gradient_module.FEW

    def reference(run: Callable[[], Tensor]) -> Tensor:
        layer.settings[False], gradient_module.FEW = replace(base, method="anderson"), len(x)
        try:
            return run()
        finally:
            layer.settings[False], gradient_module.FEW = base, few

    def logits() -> Tensor:
        with torch.no_grad():
            return net(x)

    def both() -> Tensor:
        return input_gradient(net, x, y)

    rows = []
    for what, run in (("forward", logits), ("forward and backward", both)):
        sides: Sides = {"new": run, "old": partial(reference, run)}
        times = medians(sides, repeats)
        apart = (sides["new"]() - sides["old"]()).abs().max() / sides["old"]().abs().max()
        rows.append([what, len(x), times["old"], times["new"], times["old"] / times["new"], float(apart)])
    head = ["", "batch", "Anderson and LU, ms", "now, ms", "times faster", "largest difference / largest value"]
    print(tabulate(rows, head, tablefmt="github", floatfmt=("", "d", ".1f", ".1f", ".2f", ".0e")))


def main() -> None:
    given = options("deq", __doc__, repeats=11).parse_args()
    torch.set_num_threads(1)
    net, data = trained(given.model, given.dataset, given.data_dir, given.checkpoints)
    net.requires_grad_(False)
    x, y = as_pixels(data.x_test[: max(BATCHES)]), data.y_test[: max(BATCHES)]
    load_before = os.getloadavg()[0]
    features = submodule(net, "body.extractor", nn.Module)(submodule(net, "normalize", nn.Module)(x)).detach()
    print(f"{given.model} on {given.dataset}, one thread, torch {torch.__version__}, {os.cpu_count()} cores\n")
    compare_solvers(equilibrium(net), features, given.repeats)
    print()
    for batch in (25, 250):
        compare_gradients(net, x[:batch], y[:batch], given.repeats)
        print()
    print(f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()

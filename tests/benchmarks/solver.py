"""Our equilibrium solver beside torchdeq's, and a whole gradient beside the one of every-step Anderson and LU.

    python -m tests.benchmarks.solver --data-dir data --checkpoints results/checkpoints

prints both tables for MNIST `deq` (trained first if there is no checkpoint), on one thread. Times are medians
of the process's CPU time, which a busy machine disturbs less than the clock on the wall; sides alternate.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchdeq.solver import get_solver

import models.equilibrium.gradient as gradient_module
from attacks.climb import input_gradient
from bench.data.load import as_pixels
from models.cell import ImplicitCell
from models.counting import counting
from models.equilibrium.layer import Equilibrium
from tests.benchmarks.trained import options, trained

MAX_ITER = 50
BATCHES, TOLERANCES = (1, 64, 1024), (1e-3, 1e-6)

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


def solvers(layer: Equilibrium, h: Tensor, tol: float) -> tuple[Sides, dict[str, Callable[[], float]]]:
    """Each side's solve, and its evaluations of f per sample."""
    cell, base = layer.cell, layer.settings[False]
    zero, calls = torch.zeros_like(h), [0]

    def f(z: Tensor) -> Tensor:
        calls[0] += 1
        return cell(z, h)

    def ours(name: str) -> Tensor:
        changes = {"method": name, "tol": tol, "max_iter": MAX_ITER, "fallback": "none"}
        layer.settings[False] = replace(base, **changes)
        try:
            return layer.solve(h).z
        finally:
            layer.settings[False] = base

    def peer(name: str) -> Tensor:
        with torch.no_grad():
            return get_solver(name)(f, zero, max_iter=MAX_ITER, tol=tol, stop_mode="rel")[0]

    def evaluations_of_ours(name: str) -> float:
        with counting() as work:
            ours(name)
        return work.f_evaluations / len(h)

    def evaluations_of_peer(name: str) -> float:
        calls[0] = 0
        peer(name)
        return calls[0]

    sides: Sides = {f"{name} (ours)": lambda name=name: ours(name) for name in ("alternating", "anderson")}
    counts = {f"{name} (ours)": lambda name=name: evaluations_of_ours(name) for name in ("alternating", "anderson")}
    for name in ("anderson", "broyden"):
        sides[f"{name} (torchdeq)"] = lambda name=name: peer(name)
        counts[f"{name} (torchdeq)"] = lambda name=name: evaluations_of_peer(name)
    return sides, counts


def worst_residual(cell: ImplicitCell, z: Tensor, h: Tensor) -> float:
    """The largest ‖f(z) − z‖ / ‖f(z)‖, computed in float64."""
    exact = cell.double()
    value = exact(z.double(), h.double())
    cell.float()
    return float(((value - z.double()).norm(dim=1) / value.norm(dim=1)).max())


def compare_solvers(layer: Equilibrium, features: Tensor, repeats: int) -> None:
    rows = []
    for batch in BATCHES:
        for tol in TOLERANCES:
            h = features[:batch]
            sides, counts = solvers(layer, h, tol)
            times = medians(sides, repeats)
            first = next(iter(times.values()))
            for name, run in sides.items():
                worst = worst_residual(layer.cell, run(), h)  # type: ignore[arg-type]
                rows.append([batch, tol, name, times[name], times[name] / first, counts[name](), worst])
    head = ["batch", "tol", "solver", "ms", "× ours", "evaluations of f", "worst residual"]
    print(tabulate(rows, head, tablefmt="github", floatfmt=("d", ".0e", "", ".2f", ".1f", ".1f", ".1e")))


def compare_gradients(net: nn.Module, x: Tensor, y: Tensor, repeats: int) -> None:
    """∂ cross-entropy/∂x of one batch, as an attack takes it at every step."""
    layer = net.body.equilibrium
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
        sides = {"new": run, "old": lambda run=run: reference(run)}
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
    features = net.body.extractor(net.normalize(x)).detach()
    print(f"{given.model} on {given.dataset}, one thread, torch {torch.__version__}, {os.cpu_count()} cores\n")
    compare_solvers(net.body.equilibrium, features, given.repeats)
    print()
    for batch in (25, 250):
        compare_gradients(net, x[:batch], y[:batch], given.repeats)
        print()
    print(f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()

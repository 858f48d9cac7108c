"""Our equilibrium solver beside torchdeq's, and a whole gradient beside the one of every-step Anderson and LU.

    python -m tests.benchmarks.solver --data-dir data --checkpoints results/checkpoints

prints both tables for MNIST `deq` (trained first if there is no checkpoint), on one thread. Times are medians
of the process's CPU time, which a busy machine disturbs less than the clock on the wall; sides alternate.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torchdeq.solver import get_solver

import models.equilibrium.gradient as gradient_module
from attacks.climb import input_gradient
from bench.config import load_config
from bench.data.load import as_pixels, load
from bench.names import parse_model
from bench.training.checkpoint import load_weights
from bench.training.job import make_job
from bench.training.loop import build_model, train
from models.cell import ImplicitCell
from models.counting import counting
from models.equilibrium.layer import Equilibrium

ROOT = Path(__file__).resolve().parents[2]
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
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    options.add_argument("--model", default="deq")
    options.add_argument("--dataset", default="mnist")
    options.add_argument("--data-dir", type=Path, default=Path("data"))
    options.add_argument("--checkpoints", type=Path, default=Path("results/checkpoints"))
    options.add_argument("--repeats", type=int, default=11)
    given = options.parse_args()
    torch.set_num_threads(1)
    config, data = load_config(ROOT / "bench.toml"), load(given.dataset, given.data_dir)
    job = make_job(parse_model(given.model), data, config, 0)
    weights = job.checkpoint(given.checkpoints)
    if not weights.exists():
        weights = train(job, data, given.checkpoints, torch.device("cpu"), config.train)
    net = build_model(job, data)
    load_weights(weights, net)
    net.eval().requires_grad_(False)
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

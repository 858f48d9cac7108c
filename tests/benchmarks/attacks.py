"""The paper's matrix, two attacks at four radii: our engine beside loops over torchattacks and foolbox.

    python -m tests.benchmarks.attacks --model lyadeq --dataset mnist --data-dir data --checkpoints results/checkpoints

prints one table for one model, trained first if there is no checkpoint, on one thread. Every side attacks the same
images with the same model object and counts robust accuracy; times are medians of the process's CPU time, which a busy
machine disturbs less than the clock on the wall; sides alternate. The floor is what the engine's own gradients and
forwards would take if nothing else took time: their number, times the time of one in a batch of its own.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial

import foolbox
import torch
import torchattacks
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.utils import parametrize

import models.equilibrium.gradient as gradient_module
from attacks.climb import input_gradient
from attacks.contract import frozen
from attacks.draws import Draws
from attacks.protocols import paper
from bench.data.load import Dataset, as_pixels
from bench.pace import pace
from bench.packed import Lanes, evaluate_packed
from bench.registry import attack
from tests.benchmarks.trained import options, trained

RADII = [Fraction(k, 255) for k in (2, 4, 6, 8)]
ALPHA = 1 / 255

Robust = dict[tuple[str, float], float]  # robust accuracy, per attack and radius


def ours(net: nn.Module, data: Dataset, count: int, batch: int, rows: int) -> tuple[Robust, int, int]:
    """Robust accuracies, and how many forwards and backwards they took."""
    names, lanes = [], list[tuple[object, float]]()
    for radius in RADII:
        for name, given in paper(radius).items():
            names.append((name, float(radius)))
            lanes.append((attack[name].traits["lane"](**attack[name].resolve(given)), float(radius)))
    packed: Lanes = lanes  # type: ignore[assignment]
    x, y, draws = data.x_test[:count], data.y_test[:count], partial(Draws, 0, data.test_hash)
    found = evaluate_packed(net, data.images.classes, packed, x, y, range(count), draws, batch, rows)
    robust = {
        name: float(((one["adversarial"] == one["label"]) & (one["clean"] == one["label"])).mean())
        for name, (one, _) in zip(names, found, strict=True)
    }
    return robust, sum(b.forwards for _, b in found), sum(b.backwards for _, b in found)


def loop(search: Callable[[str, float, int, Tensor, Tensor], Tensor], net: nn.Module, x: Tensor, y: Tensor) -> Robust:
    """What a user writes around a library's attacks: every attack, every radius, every batch."""
    robust: Robust = {}
    with torch.no_grad():
        clean = torch.cat([net(part).argmax(1) for part in x]) == torch.cat(list(y))
    for radius in RADII:
        for name, given in paper(radius).items():
            right = []
            for images, labels in zip(x, y, strict=True):
                adversarial = search(name, float(radius), given["steps"], images, labels)
                with torch.no_grad():
                    right.append(net(adversarial).argmax(1) == labels)
            robust[name, float(radius)] = float((torch.cat(right) & clean).float().mean())
    return robust


def by_torchattacks(net: nn.Module, name: str, eps: float, steps: int, x: Tensor, y: Tensor) -> Tensor:
    kind = {"ifgsm": torchattacks.BIM, "pgd": torchattacks.PGD}[name]
    return kind(net, eps=eps, alpha=ALPHA, steps=steps)(x, y)


def by_foolbox(net: nn.Module, name: str, eps: float, steps: int, x: Tensor, y: Tensor) -> Tensor:
    kind = {"ifgsm": foolbox.attacks.LinfBasicIterativeAttack, "pgd": foolbox.attacks.LinfPGD}[name]
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
    return kind(abs_stepsize=ALPHA, steps=steps, random_start=name == "pgd")(model, x, y, epsilons=[eps])[1][0]


@contextmanager
def textbook(net: nn.Module) -> Iterator[None]:
    """The same model solved as the paper's Algorithm 1 has it: Anderson at every step, and LU for the adjoint."""
    layer, few = net.body.equilibrium, gradient_module.FEW
    base = layer.settings[False]
    layer.settings[False], gradient_module.FEW = replace(base, method="anderson"), 10**9
    try:
        yield
    finally:
        layer.settings[False], gradient_module.FEW = base, few


def seconds_each(net: nn.Module, x: Tensor, y: Tensor, repeats: int) -> tuple[float, float]:
    """CPU seconds per image of a forward, and of a forward and backward, in one batch."""

    def forward() -> None:
        with torch.no_grad():
            net(x)

    found = []
    with frozen(net), parametrize.cached():
        for run in (forward, lambda: input_gradient(net, x, y)):
            times = []
            for _ in range(repeats + 1):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
            found.append(statistics.median(times[1:]) / len(x))
    return found[0], found[1]


def main() -> None:
    parser = options("lyadeq", __doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=250)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net, data = trained(given.model, given.dataset, given.data_dir, given.checkpoints)
    count = min(given.examples, len(data.x_test))
    x, y = as_pixels(data.x_test[:count]), data.y_test[:count]
    batches = x.split(given.batch), y.split(given.batch)
    at_once = pace(net, data, given.batch, lanes=2 * len(RADII)).rows
    sides: dict[str, Callable[[], Robust]] = {
        "ours": lambda: ours(net, data, count, given.batch, at_once)[0],
        "torchattacks, loop": lambda: loop(partial(by_torchattacks, net), net, *batches),
        "foolbox, loop": lambda: loop(partial(by_foolbox, net), net, *batches),
    }
    if hasattr(net.body, "equilibrium"):

        def slow() -> Robust:
            with textbook(net):
                return loop(partial(by_torchattacks, net), net, *batches)

        sides["torchattacks, loop, Algorithm 1 and LU"] = slow
    load = os.getloadavg()[0]
    spent: dict[str, list[float]] = {name: [] for name in sides}
    robust: dict[str, Robust] = {}
    for _ in range(given.repeats):
        for name, run in sides.items():
            start = time.process_time()
            robust[name] = run()
            spent[name].append(time.process_time() - start)
    times = {name: statistics.median(values) for name, values in spent.items()}
    _, forwards, backwards = ours(net, data, count, given.batch, at_once)
    many = max(1, at_once // given.batch) * given.batch
    one, both = seconds_each(net, x[:many], y[:many], given.repeats)
    times["floor"] = (forwards - backwards) * one + backwards * both
    head = ["", "CPU s", "× ours", *(f"{name} {255 * eps:g}" for name, eps in robust["ours"])]
    rows = [
        [name, t, t / times["ours"], *(100 * v for v in robust.get(name, {}).values())] for name, t in times.items()
    ]
    print(
        f"{given.model} on {given.dataset}, {count} images in batches of {given.batch}, {at_once} rows a forward, one "
    )
    print(f"thread, torch {torch.__version__}, medians of {given.repeats}; robust accuracy in % by attack and 255ε\n")
    print(tabulate(rows, head, tablefmt="github", floatfmt=("", ".2f", ".2f", *[".1f"] * 8)))
    print(f"\n{backwards / count:.1f} gradients and {(forwards - backwards) / count:.1f} forwards more an image; the ")
    print(f"loops take 48 and 9. Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after.")


if __name__ == "__main__":
    main()

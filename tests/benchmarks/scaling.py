"""How time and memory of the packed engine grow with images and with radii.

    python -m tests.benchmarks.scaling --model lyadeq --dataset mnist --data-dir data --checkpoints results/checkpoints

measures every point in a process of its own (CPU seconds, and by how much the resident memory rose above what model and
data take), prints a table and draws `--out`, a PNG.
"""

import multiprocessing
import resource
import statistics
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from matplotlib.ticker import LogLocator, NullLocator
from tabulate import tabulate

from bench.figures.style import new_figure, styled
from bench.system.memory import prepare_memory
from tests.benchmarks.engine import rows_for, run_matrix
from tests.benchmarks.trained import options, trained

IMAGES = (250, 500, 1000, 2000, 4000)
RADII = (1, 2, 4, 8, 16)
LARGEST = 8  # 255ε; several radii are spread evenly up to it


def main() -> None:
    parser = options("lyadeq", __doc__)
    parser.add_argument("--out", type=Path, default=Path("scaling.png"))
    given = parser.parse_args()
    points = [(n, 4) for n in IMAGES] + [(1000, k) for k in RADII]
    context, found = multiprocessing.get_context("spawn"), dict[tuple[int, int], tuple[float, float]]()
    for point in dict.fromkeys(points):
        runs = []
        for _ in range(given.repeats):
            with context.Pool(1) as pool:
                runs.append(pool.apply(measure, (vars(given), *point)))
        found[point] = (statistics.median(t for t, _ in runs), statistics.median(m for _, m in runs))
    head = ["images", "radii", "CPU s", "ms an image", "MB above model and data"]
    rows = [[n, k, t, 1e3 * t / n, m] for (n, k), (t, m) in found.items()]
    print(f"{given.model} on {given.dataset}, I-FGSM and PGD at each radius, medians of {given.repeats}\n")
    print(tabulate(rows, head, tablefmt="github", floatfmt=("d", "d", ".2f", ".2f", ".0f")))
    draw({n: found[n, 4] for n in IMAGES}, {k: found[1000, k] for k in RADII}, given.out)


def measure(given: dict[str, Any], count: int, radii: int) -> tuple[float, float]:
    """CPU seconds, and megabytes by which the peak of the resident memory rose."""
    torch.set_num_threads(1)
    prepare_memory()
    net, data = trained(given["model"], given["dataset"], given["data_dir"], given["checkpoints"])
    at = [Fraction(LARGEST * (k + 1), 255 * radii) for k in range(radii)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = run_matrix(net, data, at, range(count), rows_for(net, data, at))
    return ran.seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def draw(images: dict[int, tuple[float, float]], radii: dict[int, tuple[float, float]], path: Path) -> None:
    """Above, time with the line of proportional growth from its first point; below, memory."""
    with styled():
        figure = new_figure(5)
        panels = figure.subplots(2, 2, sharex="col")
        for (above, below), points, what in zip(panels.T, (images, radii), ("images", "radii"), strict=True):
            sizes, times = list(points), [t for t, _ in points.values()]
            above.plot(sizes, times, "o-", label="measured")
            above.plot(sizes, [times[0] * n / sizes[0] for n in sizes], ":", label="proportional")
            above.set(xscale="log", yscale="log", ylabel="CPU seconds")
            above.yaxis.set_major_locator(LogLocator(2))
            above.yaxis.set_major_formatter("{x:g}")
            above.yaxis.set_minor_locator(NullLocator())
            above.legend(frameon=False)
            below.plot(sizes, [m for _, m in points.values()], "o-")
            below.set(xscale="log", xlabel=what, ylabel="MB above model and data", ylim=(0, None))
            below.set_xticks(sizes, sizes)
            below.minorticks_off()
        figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

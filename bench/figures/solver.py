"""What the equilibrium solver does on clean and on adversarial images: its residual and its iterations."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bench.errors import BenchError
from bench.figures.recompute import Attacked
from bench.figures.style import new_figure, series_style
from bench.settings.radii import show_eps

FLOOR = 1e-9  # residuals below it are drawn there: the axis is logarithmic


def solver_figure(attacked: Sequence[Attacked]) -> tuple[Figure, str]:
    """A row for each model: distributions of iterations and residual, clean against adversarial; and the caption.

    Raises:
        BenchError: a model without a solver.
    """
    figure = new_figure(2.3 * len(attacked) + 0.3)
    panels = figure.subplots(len(attacked), 2, sharex="col", sharey=True, squeeze=False)
    slow = []
    for row, one in zip(panels, attacked, strict=True):
        figures = [_diagnostics(one, x) for x in (one.x, one.adversarial)]
        tol = one.row.cells[0].source.options.get("tol")
        for number, (found, name) in enumerate(zip(figures, ("clean", "adversarial"), strict=True)):
            style = series_style(number)
            for panel, key in zip(row, ("iterations", "residual"), strict=True):
                values = np.sort(found[key].double().cpu().numpy().clip(FLOOR if key == "residual" else 0))
                share = 100 * np.arange(1, len(values) + 1) / len(values)
                median = f"{np.median(values):.3g}"
                panel.step(
                    [values[0], *values], [0, *share], where="post", color=style.colour, ls=style.dashes,
                    label=f"{name}, median {median}",
                )  # fmt: skip
        row[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        row[1].set_xscale("log")
        if tol:
            row[1].axvline(float(tol), color="#444444", lw=0.8)
            row[1].annotate(
                f"tolerance {float(tol):g}", (float(tol), 50), rotation=90, ha="right", va="center", fontsize=7.5
            )
            above = [int((found["residual"] >= float(tol)).sum()) for found in figures]
            slow.append(f"{one.row.label} {above[0]} clean, {above[1]} adversarial")
        row[0].set_ylabel(f"{one.row.label}\nshare of images in %")
        for panel in row:
            panel.legend(loc="lower right" if panel is row[0] else "upper left")
    panels[-1][0].set_xlabel("evaluations of f until an image stopped")
    panels[-1][1].set_xlabel("relative residual of the fixed point (no unit)")
    example = attacked[0]
    caption = (
        f"Cumulative distributions over the first n = {len(example.label)} test images of {example.row.dataset}, clean "
        f"and attacked by {example.plan.label} (protocol's budget, ε = {show_eps(example.plan.eps)})."
        + (f" Images not converged to tolerance: {'; '.join(slow)}." if slow else "")
    )
    return figure, caption


def _diagnostics(one: Attacked, x: Tensor) -> dict[str, Tensor]:
    figures = getattr(one.model, "diagnostics", None)
    with torch.no_grad():
        found: dict[str, Tensor] = figures(x) if figures else {}
    if not {"residual", "iterations"} <= found.keys():
        raise BenchError(f"{one.row.label} has no equilibrium solver to look at: leave it out of --models.")
    return found

"""Accuracy against the radius: the paper's Fig. 4, and one model under everything the store holds of it."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.figures.series import Series
from bench.figures.style import SeriesStyle, legend_columns, new_figure, series_style
from bench.paper.load import TABLES, printed_cells
from bench.statistics import Share

X_LABEL = "radius ε of the L∞ ball, in 255ths of the pixel range"
Y_LABEL = "accuracy in %"
WORST = "worst case"
_WORST_IS = (
    "broken by any attack on pixels that the store holds of the model, at this radius or a smaller one; only where "
    "AutoAttack or the adaptive attack has run unreduced"
)
_JOINED = "Joined are neighbouring radii of the same n."
Points = Mapping[Fraction, Share]


def figure_4(dataset: str, series: Sequence[Series], worst: Mapping[str, Points]) -> tuple[Figure, str]:
    """Robust accuracy against ε, a panel for each attack, a line for each model; and its caption.

    Args:
        series: of one protocol.
        worst: per model its worst case, hollow and dotted; none of a model whose store has no strong attack.
    """
    attacks = list(dict.fromkeys(one.attack for one in series))
    models = list(dict.fromkeys(one.model for one in series))
    figure = new_figure(2.9)
    axes = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for panel, attack, letter in zip(axes, attacks, "abcdefgh", strict=False):
        here = [one for one in series if one.attack == attack]
        radii = _radii(*(one.points for one in here), *worst.values())
        for one in here:
            _line(panel, robust(one.points), series_style(models.index(one.model)), one.model, radii)
        for model, points in worst.items():
            style = series_style(models.index(model) if model in models else len(models))
            dotted = SeriesStyle(style.colour, ":", style.marker)
            _line(panel, robust(points), dotted, f"{model}, {WORST}", radii, hollow=True)
        _frame(panel, f"({letter}) {attack}")
    axes[0].set_ylabel(Y_LABEL)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels), legend_columns(labels)))
    shares = [s for one in series for s in robust(one.points).values()] + [
        s for p in worst.values() for s in p.values()
    ]
    about_worst = (
        f" Hollow, dotted: {WORST}, {_WORST_IS}."
        if worst
        else f" No {WORST} is shown: of none of these models does the store hold AutoAttack or the adaptive attack at "
        "these radii on as many images."
    )
    caption = (
        f"Robust accuracy on {dataset} against the radius, protocol {series[0].protocol}, first n = {counts(shares)} "
        f"test images; bars: 95 % Wilson intervals. {_JOINED}{about_worst}"
    )
    return figure, caption


def security_curves(dataset: str, by_model: Mapping[str, Sequence[Series]], worst: Mapping[str, Points]) -> Figure:
    """A panel for each model: every attack the store holds of it, its worst case, and what the paper printed."""
    columns = min(2, len(by_model))
    rows = -(-len(by_model) // columns)
    figure = new_figure(2.7 * rows + 0.5)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    names = list(dict.fromkeys(f"{s.protocol}: {s.attack}" for group in by_model.values() for s in group))
    for panel, (model, group) in zip(panels, by_model.items(), strict=False):
        points = robust(worst.get(model, {}))
        radii = _radii(*(one.points for one in group), points)
        for one in group:
            name = f"{one.protocol}: {one.attack}"
            _line(panel, one.points, series_style(names.index(name)), name, radii)
        if points:
            _line(panel, points, SeriesStyle("#000000", ":", "x"), WORST, radii)
        for attack, marker in (("I-FGSM", "1"), ("PGD", "2")):
            of_paper = printed(dataset, model, attack)
            if of_paper:
                label = f"paper's {attack}"
                panel.plot(*zip(*of_paper, strict=True), ls="", marker=marker, ms=8, color="#444444", label=label)
        _frame(panel, model)
    for panel in panels[len(by_model) :]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set_ylabel(Y_LABEL)
    entries = {
        label: handle for panel in figure.axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    in_order = sorted(entries, key=lambda label: label.startswith("paper's"))
    handles, wide = [entries[label] for label in in_order], min(3, legend_columns(in_order))
    figure.legend(handles, in_order, loc="outside upper center", ncols=wide)
    return figure


def curve_caption(dataset: str, by_model: Mapping[str, Sequence[Series]], worst: Mapping[str, Points]) -> str:
    """What the security curves show."""
    shares = [share for group in by_model.values() for one in group for share in one.points.values()]
    shares += [share for points in worst.values() for share in points.values()]
    control = any(one.control for group in by_model.values() for one in group)
    return (
        f"Accuracy on {dataset} against the radius, first n = {counts(shares)} test images, at 0 without attack; bars: "
        f"95 % Wilson intervals. {_JOINED}"
        + (f" {WORST.capitalize()}: {_WORST_IS}." if worst else "")
        + (" (control): attacked on normalised tensors, no measure of robustness." if control else "")
    )


def printed(dataset: str, model: str, attack: str) -> list[tuple[float, float]]:
    """What the paper printed of a model: (radius in 255ths, accuracy in per cent)."""
    cells = {
        c.eps: c.value
        for t in TABLES
        for c in printed_cells(t)
        if (c.dataset, c.model, c.attack) == (dataset, model, attack)
    }
    return [(float(255 * eps), value) for eps, value in sorted(cells.items())]


def robust(points: Points) -> dict[Fraction, Share]:
    """Without the accuracy when not attacked."""
    return {eps: share for eps, share in points.items() if eps}


def counts(shares: Sequence[Share]) -> str:
    """The number of images behind shares, or the least and the most."""
    numbers = sorted({share.n for share in shares})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _radii(*lines: Points) -> list[Fraction]:
    """All radii of a panel, ascending."""
    return sorted({eps for points in lines for eps in points})


def _line(
    panel: Axes, points: Points, style: SeriesStyle, label: str, radii: Sequence[Fraction], hollow: bool = False
) -> None:
    """Points with their intervals, joined where they are neighbours among `radii` and of as many images: what lies
    between others, or comes from another number of images, is no slope."""
    x, y, low, high = list[float](), list[float](), list[float](), list[float]()
    joined = {(a, b) for a, b in pairwise(radii) if a in points and b in points and points[a].n == points[b].n}
    for last, (eps, share) in zip([None, *points], points.items(), strict=False):
        if last is not None and (last, eps) not in joined:
            for column in (x, y, low, high):
                column.append(math.nan)
        x.append(float(255 * eps))
        y.append(share.percent)
        low.append(max(0.0, share.percent - share.interval[0]))
        high.append(max(0.0, share.interval[1] - share.percent))
    face = "white" if hollow else style.colour
    panel.errorbar(
        x, y, yerr=[low, high], color=style.colour, ls=style.dashes, marker=style.marker, mfc=face, elinewidth=0.8,
        capsize=2, label=label,
    )  # fmt: skip


def _frame(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left")
    panel.set_xlabel(X_LABEL if panel.get_subplotspec().get_gridspec().ncols == 1 else "ε in 255ths of the pixel range")  # type: ignore[union-attr]
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 10]))
    panel.tick_params(labelbottom=True)
    panel.set_ylim(-2, 102)

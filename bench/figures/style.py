"""How every figure looks and is saved: readable in colour, in grey, by the colour-blind, and the same every time."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.system.files import make_folder, safe_name


@dataclass(frozen=True)
class SeriesStyle:
    """One series: colour, dashes and marker each tell it from its neighbours."""

    colour: str
    dashes: str | tuple[int, tuple[int, ...]]
    marker: str


# Okabe & Ito's colours, which the colour-blind can tell apart; yellow, too light for lines on white, left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Ten classes; each point is drawn as its number too, so that colour is never needed.
CLASS_COLOURS = (*COLOURS, "#8C510A", "#5E3C99", "#666666")

WIDTH = 7.2  # inches, two columns of a page
DPI = 200
CHARACTERS = 128  # of a legend's text that fit side by side


def series_style(number: int) -> SeriesStyle:
    """The look of the series with this number; they repeat after seven."""
    return SeriesStyle(*(options[number % len(options)] for options in (COLOURS, DASHES, MARKERS)))  # type: ignore[arg-type]


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's settings for one figure, independent of the user's own."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.size": 9,
                "axes.titlesize": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": "#DDDDDD",
                "grid.linewidth": 0.6,
                "legend.frameon": False,
                "legend.fontsize": 8,
                "lines.linewidth": 1.5,
                "lines.markersize": 4.5,
                "svg.hashsalt": "bench",
            }
        )
        yield


def save(figure: Figure, caption: str, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg` with the caption below; returns their paths. No date goes into them."""
    width = int(figure.get_figwidth() * 17)
    lines = textwrap.wrap(caption, width)
    height = figure.get_figheight()
    # The caption gets room of its own under whatever the layout fills.
    room = 0.145 * len(lines) + 0.1
    figure.set_figheight(height + room)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, room / (height + room), 1, height / (height + room))))
    figure.text(0.012, 0.06 / (height + room), "\n".join(lines), fontsize=7.5, va="bottom", ha="left", color="#333333")
    make_folder(folder)
    paths = [folder / f"{safe_name(name)}.png", folder / f"{safe_name(name)}.svg"]
    figure.savefig(paths[0], dpi=DPI, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of this size in inches that arranges its own axes."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_columns(labels: Sequence[str]) -> int:
    """How many columns of a legend fit side by side."""
    return max(1, CHARACTERS // max(len(label) + 7 for label in labels))

"""How a table is written in each text format: marks, plain text, the grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Style:
    """How one format writes a best and a second-best number, the break before an interval, and a plain text."""

    best: Callable[[str], str]
    second: Callable[[str], str]
    join: str
    text: Callable[[str], str] = str


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"—": "---", "–": "--", "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "≠": r"$\neq$"},
    **{"†": r"\dag{}", "‡": r"\ddag{}"},
    **{"ε": r"$\epsilon$", "δ": r"$\delta$", "∞": r"$\infty$", "‖": r"$\|$", "α": r"$\alpha$", "<": "$<$", ">": "$>$"},
    # At the start of a row or line a bracket would be read as the length behind a line break.
    "[": "{[}",
    "]": "{]}",
}


def latex_text(text: str) -> str:
    """Text as LaTeX prints it literally; a sign that pdflatex has no letter for becomes a question mark."""
    return "".join(_LATEX.get(sign, sign if sign.isascii() else "?") for sign in text)


def markdown_text(text: str) -> str:
    """Text as Markdown prints it literally, inside a table too."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{sign}" if sign in "\\|*_`[]" else sign for sign in text)


STYLES = {
    "terminal": Style(lambda s: f"\033[1m{s}\033[0m", lambda s: f"\033[4m{s}\033[0m", "\n"),
    "plain": Style(lambda s: f"{s} *", lambda s: f"{s} _", "\n"),
    "markdown": Style(lambda s: f"**{s}**", lambda s: f"<u>{s}</u>", "<br>", markdown_text),
    "latex": Style(lambda s: f"\\textbf{{{s}}}", lambda s: f"\\underline{{{s}}}", " ", latex_text),
}


def style_of(form: Format, colour: bool) -> Style:
    """How a text format marks numbers."""
    return STYLES["terminal" if colour else "plain"] if form == "terminal" else STYLES[form]


def lay_out(header: list[str], body: list[list[str]], form: Format, columns: str = "") -> str:
    """Cells that are written in the format's style already, as its table; `columns` are LaTeX's, else lll and r."""
    if form == "latex":
        return _booktabs(header, body, columns or "lll" + "r" * (len(header) - 3))
    tables = {"terminal": "simple", "markdown": "pipe"}
    return tabulate(body, header, tablefmt=tables[form], disable_numparse=True) + "\n"


def rank_mark(percent: float, rivals: Sequence[float]) -> Mark:
    """Equal numbers share a mark: all with the largest of the rivals, itself among them, are best, all with the next
    smaller one second."""
    ranks = sorted({f"{rival:.9f}" for rival in rivals}, key=float, reverse=True)
    place = ranks.index(f"{percent:.9f}")
    return "" if len(rivals) < 2 else "best" if place == 0 else "second" if place == 1 else ""


def _booktabs(header: list[str], body: list[list[str]], columns: str) -> str:
    rows = [" & ".join(row) + r" \\" for row in (header, *body)]
    lines = [r"\begin{tabular}{" + columns + "}", r"\toprule", rows[0], r"\midrule"]
    return "\n".join([*lines, *rows[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"

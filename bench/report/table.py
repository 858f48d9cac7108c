"""A table in the layout of the paper's Table 1, for the terminal, Markdown, LaTeX, CSV and JSON.

One frame of marked cells stands behind all formats.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import pandas as pd
from tabulate import tabulate

from bench.epsilon import show_eps
from bench.report.rows import Line, Share

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Style:
    """How one format writes a best and a second-best number, and the break before an interval."""

    best: Callable[[str], str]
    second: Callable[[str], str]
    join: str


STYLES = {
    "terminal": Style(lambda s: f"\033[1m{s}\033[0m", lambda s: f"\033[4m{s}\033[0m", "\n"),
    "plain": Style(lambda s: f"{s} *", lambda s: f"{s} _", "\n"),
    "markdown": Style(lambda s: f"**{s}**", lambda s: f"<u>{s}</u>", "<br>"),
    "latex": Style(lambda s: f"\\textbf{{{s}}}", lambda s: f"\\underline{{{s}}}", " "),
}


def long_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """One row per number: data set, model, attack, ε, accuracy, interval (per cent), n, verdict, failure."""
    records = []
    for line in lines:
        head = {"dataset": line.dataset, "model": line.model, "attack": line.attack or None}
        head["verdict"] = line.verdict or None
        shares: list[tuple[str, Share]] = [("0", line.clean)] if line.clean else []
        shares += [(show_eps(eps), share) for eps, share in line.robust.items()]
        for eps, share in shares:
            low, high = share.interval
            records.append(
                {**head, "eps": eps, "accuracy": share.percent, "low": low, "high": high, "n": share.n, "failure": None}
            )
        if line.failure:
            records.append({**head, "failure": line.failure})
    columns = ["dataset", "model", "attack", "eps", "accuracy", "low", "high", "n", "verdict", "failure"]
    return pd.DataFrame(records, columns=columns)


def render(lines: Sequence[Line], eps: Sequence[Fraction], baseline: str, form: Format, colour: bool = False) -> str:
    """The table as text.

    Args:
        lines: what to show.
        eps: the columns.
        baseline: model whose numbers gains are measured against.
        form: output format.
        colour: whether the terminal takes escape codes; without, best is marked `*`, second `_`.
    """
    if form == "csv":
        return long_frame(lines).to_csv(index=False, float_format="%.4f")
    if form == "json":
        return json.dumps(json.loads(long_frame(lines).to_json(orient="records")), indent=1) + "\n"
    style = STYLES["terminal" if colour else "plain"] if form == "terminal" else STYLES[form]
    header = ["Benchmark", "Model", "Clean", "n", "Attack", *(f"ε = {show_eps(e)}" for e in eps), "Verdict"]
    if form == "latex":
        header[5:-1] = [f"$\\epsilon = {show_eps(e)}$" for e in eps]
    body = _body(lines, eps, baseline, style)
    formats = {"terminal": "simple", "markdown": "pipe", "latex": "latex_raw"}
    if form == "latex":
        return _booktabs(header, body)
    return tabulate(body, header, tablefmt=formats[form], disable_numparse=True) + "\n"


def budget_lines(lines: Sequence[Line]) -> str:
    """What every row took, summed over its radii and examples."""
    table = [
        [
            line.dataset,
            line.model,
            line.attack,
            *(f"{v:,}" for v in (b.forwards, b.backwards, b.f_evaluations, b.vjps)),
            f"{b.seconds:.1f}",
            line.unconverged,
        ]
        for line in lines
        if line.attack
        for b in [line.budget]
    ]
    header = ["Budget", "model", "attack", "forwards", "backwards", "f-evaluations", "VJPs", "seconds", "unconverged"]
    return tabulate(table, header, tablefmt="plain", disable_numparse=True) + "\n" if table else ""


def _body(lines: Sequence[Line], eps: Sequence[Fraction], baseline: str, style: Style) -> list[list[str]]:
    body, before = [], ("", "")
    for line in lines:
        here = (line.dataset, line.model)
        head = [line.dataset if here[0] != before[0] else "", line.model if here != before else ""]
        if line.failure and line.clean is None:
            body.append(
                [line.dataset if here[0] != before[0] else "", line.model, "failed", "", "", *[""] * len(eps), ""]
            )
            before = here
            continue
        if line.clean is None:
            continue
        clean = _with_interval(f"{line.clean.percent:.2f}", line.clean, style) if here != before else ""
        cells = [head[0], head[1], clean, str(line.clean.n) if here != before else "", line.attack]
        cells += [_number(line, radius, lines, baseline, style) for radius in eps]
        body.append([*cells, line.verdict if here != before else ""])
        before = here
    return body


def _number(line: Line, eps: Fraction, lines: Sequence[Line], baseline: str, style: Style) -> str:
    share = line.robust.get(eps)
    if share is None:
        return "—"
    rivals = [x for x in lines if (x.dataset, x.attack) == (line.dataset, line.attack) and eps in x.robust]
    text = f"{share.percent:.2f}"
    base = next((x.robust[eps] for x in rivals if x.model == baseline), None)
    if base is not None and line.model != baseline:
        text += f" ({share.percent - base.percent:+.2f})"
    mark = _mark(share, [x.robust[eps] for x in rivals])
    text = style.best(text) if mark == "best" else style.second(text) if mark == "second" else text
    return _with_interval(text, share, style)


def _mark(share: Share, rivals: Sequence[Share]) -> Mark:
    ranks = sorted({rival.percent for rival in rivals}, reverse=True)
    if len(ranks) < 2:
        return ""
    return "best" if share.percent == ranks[0] else "second" if share.percent == ranks[1] else ""


def _with_interval(text: str, share: Share, style: Style) -> str:
    low, high = share.interval
    return f"{text}{style.join}[{low:.1f}, {high:.1f}]"


def _booktabs(header: list[str], body: list[list[str]]) -> str:
    def escape(text: str) -> str:
        return text.replace("_", "\\_").replace("%", "\\%").replace("—", "--")

    rows = [" & ".join(escape(cell) for cell in row) + r" \\" for row in body]
    top = " & ".join(header) + r" \\"
    lines = [r"\begin{tabular}{lll" + "r" * (len(header) - 4) + "l" + "}", r"\toprule", top, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"

"""A table in the layout of the paper's Table 1, for the terminal, Markdown, LaTeX, CSV and JSON.

One frame of marked cells stands behind all formats.
"""

import json
from collections.abc import Sequence
from fractions import Fraction

import pandas as pd
from tabulate import tabulate

from bench.evaluation.budget import Budget
from bench.settings.radii import show_eps
from bench.statistics import Share
from bench.tables.doubts import MARK, doubt_lines, why_unreliable
from bench.tables.markup import Format, Style, lay_out, rank_mark, style_of
from bench.tables.numbers import Number, gain, number, over_seeds, rival
from bench.tables.table_lines import Line

COLUMNS = ["dataset", "model", "train_seed", "note", "kind", "attack", "eps", "accuracy", "low", "high", "n"]
COLUMNS += ["gain", "p_value", "unreliable", "verdict", "failure"]


def long_frame(lines: Sequence[Line], baseline: str = "") -> pd.DataFrame:
    """One row per number of one training seed: accuracy and interval (per cent), n, gain over the baseline and its p.

    `kind` says what `accuracy` is under ε > 0: of an attack, the share right both clean and attacked; of a
    certificate, the share right and proven. `p_value` is McNemar's, paired by example; `unreliable` says why the number
    may be made up.
    """
    records = []
    for line in lines:
        head = {"dataset": line.dataset, "model": line.model, "train_seed": line.train_seed, "note": line.note or None}
        head |= {"kind": line.kind if line.attack else None, "attack": line.attack or None}
        head["verdict"] = line.verdict or None
        shares: list[tuple[Fraction | None, Share]] = []
        if line.clean and line.kind == "attack":
            shares.append((None, line.clean))
        for eps, share in [*shares, *line.robust.items()]:
            (low, high), found = share.interval, gain(line, eps, lines, baseline)
            record = {"eps": "0" if eps is None else show_eps(eps), "accuracy": share.percent, "low": low, "high": high}
            compared = {"gain": found.points, "p_value": found.p} if found else {}
            why = None if eps is None else why_unreliable(line.doubts.get(eps, ())) or None
            records.append({**head, **record, "n": share.n, **compared, "unreliable": why})
        if line.failure:
            records.append({**head, "failure": line.failure})
    return pd.DataFrame(records, columns=COLUMNS).astype({"n": "Int64", "train_seed": "Int64"})


def render(lines: Sequence[Line], eps: Sequence[Fraction], baseline: str, form: Format, colour: bool = False) -> str:
    """The table as text.

    Args:
        lines: what to show; csv and json give every training seed its own records, the others one line per model.
        eps: the columns.
        baseline: model whose numbers gains are measured against.
        form: output format.
        colour: whether the terminal takes escape codes; without, best is marked `*`, second `_`.
    """
    if form == "csv":
        frame = long_frame(lines, baseline)
        frame["p_value"] = frame["p_value"].map("{:.3g}".format, na_action="ignore")
        return frame.to_csv(index=False, float_format="%.4f")
    if form == "json":
        return json.dumps(json.loads(long_frame(lines, baseline).to_json(orient="records")), indent=1) + "\n"
    style = style_of(form, colour)
    header = ["Benchmark", "Model", "Clean", "n", "Attack", *(f"ε = {show_eps(e)}" for e in eps), "Verdict"]
    if form == "latex":
        header[5:-1] = [f"$\\epsilon = {show_eps(e)}$" for e in eps]
    return lay_out(header, _body(lines, eps, baseline, style), form)


def budget_lines(lines: Sequence[Line]) -> str:
    """What every row took, summed over its radii, examples and training seeds; a dash for what it does not report."""
    table = []
    for group in over_seeds(lines):
        if not group[0].robust:
            continue
        spent = Budget()
        for line in group:
            spent.add(line.budget)
        # Who evaluates no f, or does not report it, has no such counts.
        inner = (spent.f_evaluations, spent.vjps) if spent.f_evaluations else (None, None)
        first, missed = group[0], [line.unconverged for line in group if line.unconverged is not None]
        counts = (spent.forwards, spent.backwards, *inner)
        figures = ["—" if count is None else f"{count:,}" for count in counts]
        figures += [f"{spent.seconds:.1f}", f"{sum(missed):,}" if missed else "—"]
        table.append([first.dataset, label(first), first.attack, *figures])
    header = ["Budget", "model", "attack", "forwards", "backwards", "f-evaluations", "VJPs", "seconds", "unconverged"]
    return tabulate(table, header, tablefmt="plain", disable_numparse=True) + "\n" if table else ""


def unreliable_lines(lines: Sequence[Line]) -> list[str]:
    """Why numbers of the table may be made up, a sentence each; what concerns too few images to matter without mark."""
    several = len({line.train_seed for line in lines} - {None}) > 1

    def who(line: Line) -> str:
        seed = f" (seed {line.train_seed})" if several and line.train_seed is not None else ""
        return f"{label(line)}{seed} on {line.dataset}"

    return doubt_lines([(who(line), line.attack, line.doubts) for line in lines])


def label(line: Line) -> str:
    """The model as a table names it."""
    return f"{line.model} ({line.note})" if line.note else line.model


def _body(lines: Sequence[Line], eps: Sequence[Fraction], baseline: str, style: Style) -> list[list[str]]:
    groups = over_seeds(lines)
    several = len({line.train_seed for line in lines} - {None}) > 1
    body, before = [], ("", "")
    for group in groups:
        line = group[0]
        here = (line.dataset, label(line))
        new = here != before
        head = [style.text(here[0]) if here[0] != before[0] else "", style.text(here[1]) if new else ""]
        before = here
        if not line.attack:
            seeds = ", ".join(str(x.train_seed) for x in group if x.train_seed is not None)
            name = f"{here[1]} (seed {seeds})" if seeds and several else here[1]
            state = line.failure if line.absent else "failed"
            body.append([head[0], style.text(name), state, "", "", *[style.text("—")] * len(eps), ""])
            continue
        count = max(len(other) for other in groups if (other[0].dataset, label(other[0])) == here)
        clean = number(group, None, lines, "")
        assert clean is not None
        numbers = [number(group, radius, lines, baseline) for radius in eps]
        cells = [_with_interval(f"{clean.percent:.2f}", clean, count, style) if new else ""]
        cells += [style.text(_n(clean)) if new else "", style.text(line.attack)]
        for radius, found in zip(eps, numbers, strict=True):
            rivals = [] if unreliable(group, radius) else _rivals(groups, line, radius, lines)
            cells.append(_cell(found, count, rivals, style) if found else style.text("—"))
        verdicts = dict.fromkeys(other.verdict for other in group if other.verdict)
        body.append([*head, *cells, ", ".join(verdicts) if new else ""])
    return body


def _rivals(groups: Sequence[Sequence[Line]], line: Line, eps: Fraction, lines: Sequence[Line]) -> list[float]:
    others = [group for group in groups if rival(group[0], line) and not unreliable(group, eps)]
    found = [number(group, eps, lines, "") for group in others]
    return [x.percent for x in found if x]


def unreliable(group: Sequence[Line], eps: Fraction) -> bool:
    """Whether a number of lines that differ in their seed alone may be made up; it is then no rival of others."""
    return any(why_unreliable(line.doubts.get(eps, ())) for line in group)


def _cell(found: Number, seeds: int, rivals: Sequence[float], style: Style) -> str:
    text = f"{found.percent:.2f}"
    if found.gain:
        text += f" ({found.gain.points:+.2f}{', n.s.' if found.gain.noise else ''})"
    mark = rank_mark(found.percent, rivals) if rivals else ""
    text += "" if rivals else f" {style.text(MARK)}"
    text = style.best(text) if mark == "best" else style.second(text) if mark == "second" else text
    return _with_interval(text, found, seeds, style)


def _n(found: Number) -> str:
    return str(found.n) if found.seeds == 1 else f"{found.n} × {found.seeds} seeds"


def _with_interval(text: str, found: Number, seeds: int, style: Style) -> str:
    low, high = f"{found.low:.1f}", f"{found.high:.1f}"
    spread = f"[{low}, {high}]" if found.seeds == 1 else style.text(f"{low}–{high}")
    short = f" ({found.seeds} of {seeds} seeds)" if found.seeds < seeds else ""
    return f"{text}{style.join}{spread}{short}"

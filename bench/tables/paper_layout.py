"""A table of the paper as text: its own layout, in every cell our number beside the printed one."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.paper.load import footnotes
from bench.tables.markup import Format, Style, lay_out, rank_mark, style_of

Record = Mapping[Any, Any]

LEGEND = (
    "In each cell: our accuracy / the paper's, in per cent; below, the difference in points and our 95 % Wilson "
    "interval. † the paper's number lies outside that interval. — not in the store. Under ε: robust accuracy, the "
    "share of the first n test images that are classified correctly both clean and under attack."
)


def render_paper(frame: pd.DataFrame, form: Format, colour: bool = False) -> str:
    """The table alone; CSV and JSON hold the frame as it is.

    Args:
        frame: of `paper_frame`.
        colour: whether a terminal takes escape codes.
    """
    if form == "csv":
        return frame.to_csv(index=False, float_format="%.4f")
    if form == "json":
        return json.dumps(json.loads(frame.to_json(orient="records")), indent=1, ensure_ascii=False) + "\n"
    style = style_of(form, colour)
    first = int(frame["table"].iloc[0]) == 1
    header, body = (_by_model if first else _by_radius)(frame, style, form)
    columns = "llrrl" if first else "ll"
    return lay_out([style.text(head) for head in header], body, form, columns + "r" * (len(header) - len(columns)))


def training_lines(frame: pd.DataFrame, unread: Collection[str] = ()) -> list[str]:
    """What stands behind each of the paper's names: our model, how it was trained, on how many images it was tested.

    Args:
        unread: data sets that could not be read, so that nothing is known of their models.
    """
    lines: list[str] = []
    untrained: dict[str, list[str]] = {}
    groups = frame.groupby(["dataset", "row", "model", "training"], sort=False)
    for (dataset, row, model, training), group in groups:
        tested = f"n = {_counts(group)}" if group["n"].notna().any() else "not in the store"
        if training:
            lines.append(f"{row} on {dataset}: {model}, {training}, {tested}")
        else:
            untrained.setdefault(str(dataset), []).append(str(model))
    for name, models in untrained.items():
        lost = f"{name}: the data set is not there, without which its results cannot be told from another's"
        lines.append(lost if name in unread else f"no checkpoint on {name}: {', '.join(models)}")
    return lines


def paper_notes(frame: pd.DataFrame) -> list[str]:
    """Where the paper disagrees with itself about this table."""
    return footnotes(int(frame["table"].iloc[0]))


def _by_model(frame: pd.DataFrame, style: Style, form: Format) -> tuple[list[str], list[list[str]]]:
    """Table 1: a row for each model and attack, a column for each radius."""
    radii = list(dict.fromkeys(frame.loc[frame["attack"] != "", "eps"]))
    header = ["Benchmark", "Model", "Clean", "n", "Attack", *(f"ε = {radius}" for radius in radii)]
    body: list[list[str]] = []
    shown = None
    for (dataset, row), group in frame.groupby(["dataset", "row"], sort=False):
        robust = group[group["attack"] != ""]
        for number, (attack, cells) in enumerate(robust.groupby("attack", sort=False)):
            clean = [_cell(r, frame, style, form) for r in _records(group[group["attack"] == ""])]
            head = ["" if shown == dataset else style.text(str(dataset)), style.text(str(row)), *clean, _counts(group)]
            by_radius = {r["eps"]: _cell(r, frame, style, form) for r in _records(cells)}
            body.append([*(head if not number else ["", "", *[""] * len(clean), ""]), style.text(str(attack))])
            body[-1] += [by_radius[radius] for radius in radii]
            shown = dataset
    return header, body


def _by_radius(frame: pd.DataFrame, style: Style, form: Format) -> tuple[list[str], list[list[str]]]:
    """Tables 2 and 3: a row for each radius and attack, a column for each model."""
    names = list(dict.fromkeys(frame["row"]))
    body: list[list[str]] = []
    shown = None
    for (radius, attack), group in frame.groupby(["eps", "attack"], sort=False):
        cells = {r["row"]: _cell(r, frame, style, form) for r in _records(group)}
        head = "" if shown == radius else style.text(f"ε = {radius}")
        body.append([head, style.text(str(attack)), *(cells[name] for name in names)])
        shown = radius
    return ["Radius", "Attack", *names], body


def _cell(record: Record, frame: pd.DataFrame, style: Style, form: Format) -> str:
    paper = f" / {record['paper']:.2f}"
    if pd.isna(record["accuracy"]):
        return style.text("—") + paper
    same = [frame[key] == record[key] for key in ("dataset", "attack", "eps")]
    rivals = frame[same[0] & same[1] & same[2] & frame["n"].notna()]
    mark = rank_mark(float(record["accuracy"]), [float(x) for x in rivals["accuracy"]])
    ours = f"{record['accuracy']:.2f}"
    ours = style.best(ours) if mark == "best" else style.second(ours) if mark == "second" else ours
    outside = "" if record["paper_in_interval"] else style.text("†")
    below = f"{record['difference']:+.2f}{outside} [{record['low']:.1f}, {record['high']:.1f}]"
    if form == "latex":
        return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{ours}{paper} \\ {below}\end{{tabular}}"
    return f"{ours}{paper}{style.join}{below}"


def _records(frame: pd.DataFrame) -> Sequence[Record]:
    return frame.to_dict("records")


def _counts(group: pd.DataFrame) -> str:
    """The numbers of images behind a group: one, or the least and the most."""
    counts = sorted({int(n) for n in group["n"].dropna()})
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"

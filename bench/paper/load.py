"""Reading what the paper printed."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

from bench.settings.radii import parse_eps

TABLES = (1, 2, 3)
# The paper's names of its attacks, and ours.
ATTACKS = {"I-FGSM": "ifgsm", "PGD": "pgd"}
# What the paper trained for (Section 5.2.1).
EPOCHS = {"mnist": 10, "svhn": 40, "cifar10": 50, "cifar100": 50}


@dataclass(frozen=True)
class Printed:
    """One cell of a table.

    Attributes:
        table, dataset, row: where it stands; a column of Tables 2 and 3 is a row here, since it is a model.
        attack: the paper's name, "" for accuracy without attack.
        eps: radius, a fraction of the pixel range; 0 without attack.
        value: accuracy in per cent.
        gain: what stands in parentheses behind it, points.
        mark: "best" (bold) or "second" (underlined), "" for neither.
        model: our name of the row.
    """

    table: int
    dataset: str
    row: str
    attack: str
    eps: Fraction
    value: float
    gain: float | None
    mark: str
    model: str


@dataclass(frozen=True)
class Inconsistency:
    """Where the paper disagrees with itself.

    Attributes:
        where, quote: section or table, and its words, None where it is a matter of the table alone.
        stated: the number in those words or printed as a gain, None where there is none.
        computed: the difference of two printed cells that says otherwise, points.
        sentence: what is wrong, as a footnote.
    """

    name: str
    tables: Sequence[int]
    where: str
    quote: str | None
    stated: float | None
    computed: float
    sentence: str


@cache
def printed_cells(table: int) -> tuple[Printed, ...]:
    """The cells of Table 1, 2 or 3, in the order they are printed."""
    models = {(int(line["table"]), line["row"]): line["model"] for line in _csv("rows.csv")}
    return tuple(_cell(line, models[table, line["row"]]) for line in _csv(f"table{table}.csv"))


@cache
def inconsistencies() -> tuple[Inconsistency, ...]:
    """All that are known; `computed` comes from the cells."""
    values = {_place(cell): cell.value for table in TABLES for cell in printed_cells(table)}
    found = []
    for entry in json.loads(_text("inconsistencies.json")):
        first, second = (values[_reference(entry.pop(name))] for name in ("minuend", "subtrahend"))
        found.append(Inconsistency(**entry, computed=round(first - second, 2)))
    return tuple(found)


def footnotes(table: int) -> list[str]:
    """One sentence for everything inconsistent in a table or in what the text says of it."""
    return [f"{entry.where}: {entry.sentence}." for entry in inconsistencies() if table in entry.tables]


def _text(name: str) -> str:
    return files("bench.paper").joinpath(name).read_text(encoding="utf-8")


def _csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(name).splitlines()))


def _cell(line: dict[str, str], model: str) -> Printed:
    return Printed(
        table=int(line["table"]),
        dataset=line["dataset"],
        row=line["row"],
        attack=line["attack"],
        eps=parse_eps(line["eps"]),
        value=float(line["value"]),
        gain=float(line["gain"]) if line["gain"] else None,
        mark=line["mark"],
        model=model,
    )


def _place(cell: Printed) -> tuple[Any, ...]:
    return cell.table, cell.dataset, cell.row, cell.attack, cell.eps


def _reference(place: list[Any]) -> tuple[Any, ...]:
    *names, eps = place
    return (*names, parse_eps(eps))

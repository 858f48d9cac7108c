"""The paper's tables read from its text, independently of the CSV files: what those are compared with."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = ROOT.parent / "shared" / "paper" / "paper.md"

# table, data set, row, attack ("" for clean), ε, value, printed gain, mark
Printed = tuple[int, str, str, str, str, float, float | None, str]

_CELL = re.compile(r"(?:<(?P<tag>[bu])>)?(?P<value>\d+\.\d\d)(?: \((?P<gain>[+-]\d+\.\d\d)\))?(?:</[bu]>)?")
_EPS = re.compile(r"\$\\epsilon = (\d/255)\$")
_MARKS = {"b": "best", "u": "second", None: ""}


def read_tables(path: Path = TEXT) -> list[Printed]:
    """Every number of Tables 1 to 3, in the order they are printed."""
    return [cell for number, rows in _tables(path).items() for cell in _parse(number, rows)]


def _tables(path: Path) -> dict[int, list[list[str]]]:
    tables: dict[int, list[list[str]]] = {}
    number = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\*\*Table (\d)\*\*", line.strip()):
            number = int(found[1])
        elif "\t" in line and number:
            tables.setdefault(number, []).append(line.split("\t"))
    return tables


def _parse(number: int, rows: list[list[str]]) -> list[Printed]:
    header, *body = rows
    if number == 1:
        return _first(header, body)
    names = _models(header[2:])
    cells: list[Printed] = []
    eps = ""
    for head, attack, *numbers in body:
        eps = _radius(head) if head else eps
        cells += [(number, "cifar10", n, attack, eps, *_cell(c)) for n, c in zip(names, numbers, strict=True)]
    return cells


def _first(header: list[str], body: list[list[str]]) -> list[Printed]:
    radii = [_radius(column) for column in header[4:]]
    cells: list[Printed] = []
    dataset = row = ""
    for benchmark, model, clean, attack, *numbers in body:
        dataset, row = benchmark.lower() or dataset, re.sub(r"\s*\(.*\)$", "", model) or row
        if clean:
            cells.append((1, dataset, row, "", "0", *_cell(clean)))
        cells += [(1, dataset, row, attack, e, *_cell(c)) for e, c in zip(radii, numbers, strict=True)]
    return cells


def _models(columns: list[str]) -> list[str]:
    """Column heads; one that begins with + belongs to the last that does not."""
    names, base = [], ""
    for column in columns:
        base = base if column.startswith("+") else column
        names.append(f"{base} {column}" if column.startswith("+") else column)
    return names


def _radius(text: str) -> str:
    found = _EPS.fullmatch(text)
    assert found, text
    return found[1]


def _cell(text: str) -> tuple[float, float | None, str]:
    found = _CELL.fullmatch(text)
    assert found, text
    return float(found["value"]), float(found["gain"]) if found["gain"] else None, _MARKS[found["tag"]]

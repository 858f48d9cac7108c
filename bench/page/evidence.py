"""What stands beside a number: worst case, certified accuracy, verdict. The one place that knows where these lie.

Whatever the store has none of is None, and the page says that it was not evaluated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.diagnostics.reading import Reading, read
from bench.diagnostics.result import Result
from bench.diagnostics.suite import SUITE
from bench.errors import BenchError
from bench.figures.series import worst_cases
from bench.files import read_json
from bench.report.inventory import Held
from bench.report.rows import Share
from bench.training.job import canonical

ADAPTIVE = "adaptive"  # the protocol whose cells make the worst case


@dataclass(frozen=True)
class Diagnosis:
    """The diagnostics of one model under one protocol, on the most images there are.

    Attributes:
        reading: all of them read together.
        level: the gravest verdict of all: FAIL, WARN or OK.
        results: in the suite's order.
        whole: whether every diagnostic of the suite is among them.
    """

    model: str
    data: str
    protocol: str
    reading: Reading
    level: str
    results: list[Result]
    whole: bool


@dataclass
class Evidence:
    """What else the store knows of one model at one radius, and the cells that it comes from."""

    worst: Share | None = None
    certified: Share | None = None
    diagnosis: Diagnosis | None = None
    cells: list[tuple[str, Held]] = field(default_factory=list)


def evidence(held: Held, same_model: Sequence[Held], diagnoses: Sequence[Diagnosis]) -> Evidence:
    """Everything that qualifies one cell's number.

    Args:
        same_model: all cells of its model on its data.
        diagnoses: of any model.
    """
    eps, found = held.cell.eps, Evidence()
    inside = [one for one in same_model if one.cell.protocol == ADAPTIVE and one.cell.eps <= eps]
    if any(one.cell.eps == eps for one in inside):
        found.worst = worst_cases(inside, 0)[eps]
        found.cells += [("worst case", one) for one in inside]
    for one in same_model:
        if one.certificate and one.cell.eps == eps:
            found.certified = certified_share(one)
            found.cells.append(("certified", one))
    identity = held.cell.identity
    place = (canonical(identity["model"]), canonical(identity["data"]), held.cell.protocol)
    found.diagnosis = next((d for d in diagnoses if (d.model, d.data, d.protocol) == place), None)
    return found


def certified_share(held: Held) -> Share:
    """Classified correctly and proven to stay so in the whole ball."""
    outcomes = held.outcomes
    right = (outcomes["clean"] == outcomes["label"]) & outcomes["certified"].astype(bool)
    return Share(int(np.sum(right)), len(right))


def diagnoses(folder: Path) -> tuple[list[Diagnosis], list[str]]:
    """Stored findings, `diagnostics/<data set>/<model>/<case>/n<N>/<name>.json`; and a line for what cannot be read.

    Of several cases of a model under a protocol, such as other radii, the one with the most diagnostics comes first.
    """
    found, problems = [], []
    for case in sorted(folder.glob("diagnostics/*/*/*")):
        counts = sorted((int(n.name[1:]), n) for n in case.glob("n*") if n.name[1:].isdecimal())
        try:
            found += [_diagnosis([read_json(path) for path in sorted(n.glob("*.json"))]) for _, n in counts[-1:]]
        except (BenchError, KeyError, IndexError, TypeError) as error:
            problems.append(f"{case}: {error}")
    return sorted(found, key=lambda diagnosis: -len(diagnosis.results)), problems


def _diagnosis(contents: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """Raises KeyError, IndexError or TypeError for content of another form."""
    identity = contents[0]["identity"]["cells"][0]
    by_name = {content["result"]["name"]: content for content in contents}
    current = [by_name[d.name] for d in SUITE.values() if by_name.get(d.name, {}).get("version") == d.version]
    results = [Result.from_dict(content["result"]) for content in current]
    levels = {result.verdict for result in results}
    return Diagnosis(
        model=canonical(identity["model"]),
        data=canonical(identity["data"]),
        protocol=str(identity["protocol"]["name"]),
        reading=read(results),
        level="FAIL" if "FAIL" in levels else "WARN" if "WARN" in levels else "OK",
        results=results,
        whole=len(results) == len(SUITE),
    )


def radius(eps: Fraction) -> float:
    """In 255ths of the pixel range."""
    return float(255 * eps)

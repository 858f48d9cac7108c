"""What stands beside a number: worst case, certified accuracy, verdict. The one place that knows where these lie.

Whatever the store has none of is None, and the page says that it was not evaluated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.figures.series import worst_cases
from bench.files import read_json
from bench.report.inventory import Held
from bench.report.rows import Share
from bench.training.job import canonical

ADAPTIVE = "adaptive"  # the protocol whose cells make the worst case
# In order of precedence: what a fired diagnostic is a sign of.
SIGNS = ("artefact", "masking", "weak attack", "non-convergence", "broken claim")
CLEAR = "no sign of failure"


@dataclass(frozen=True)
class Diagnosis:
    """The diagnostics of one model under one protocol, on the most images there are.

    Attributes:
        verdict: the sign that takes precedence, or that there is none.
        level: the gravest verdict of all: FAIL, WARN or OK.
        results: name, verdict, sentence, value, n, interval, … of each.
    """

    model: str
    data: str
    protocol: str
    verdict: str
    level: str
    results: list[dict[str, Any]]


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
    """Stored findings, `diagnostics/<data set>/<model>/<case>/n<N>/<name>.json`; and a line for what cannot be read."""
    found, problems = [], []
    for case in sorted(folder.glob("diagnostics/*/*/*")):
        counts = sorted((int(n.name[1:]), n) for n in case.glob("n*") if n.name[1:].isdecimal())
        if not counts:
            continue
        try:
            found.append(_diagnosis([read_json(path) for path in sorted(counts[-1][1].glob("*.json"))]))
        except (BenchError, KeyError, IndexError, TypeError) as error:
            problems.append(f"{case}: {error}")
    return found, problems


def _diagnosis(contents: Sequence[Mapping[str, Any]]) -> Diagnosis:
    identity = contents[0]["identity"]["cells"][0]
    results = [dict(content["result"]) for content in contents]
    fired = [result for result in results if result["verdict"] in ("WARN", "FAIL")]
    signs = {result.get("sign") for result in fired}
    levels = {result["verdict"] for result in results}
    return Diagnosis(
        model=canonical(identity["model"]),
        data=canonical(identity["data"]),
        protocol=str(identity["protocol"]["name"]),
        verdict=next((sign for sign in SIGNS if sign in signs), CLEAR),
        level=next((level for level in ("FAIL", "WARN") if level in levels), "OK"),
        results=results,
    )


def radius(eps: Fraction) -> float:
    """In 255ths of the pixel range."""
    return float(255 * eps)

"""What stands beside a number: worst case, certified accuracy, verdict. The one place that knows where these lie.

Whatever the store has none of is None, and the page says that it was not evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.diagnostics.overall_reading import Reading, read
from bench.diagnostics.stored import StoredDiagnosis, find_stored, identity_key
from bench.errors import BenchError
from bench.evaluation.certificates import CERTIFICATE
from bench.statistics import Share
from bench.store.stored_cells import StoredCell
from bench.system.files import read_json
from bench.tables.table_lines import certified_right
from bench.tables.worst_case import worst_cases

LEVELS = ("OK", "WARN", "FAIL")  # ascending


@dataclass(frozen=True)
class Diagnosis:
    """What the store holds of one case.

    Attributes:
        cells: keys of those that were diagnosed.
        stored: the results, and on how many images.
    """

    cells: frozenset[str]
    stored: StoredDiagnosis

    @property
    def reading(self) -> Reading | None:
        """All results read together; None where they are not the whole suite."""
        return read(self.stored.results) if self.stored.whole else None

    @property
    def gravest(self) -> str:
        """The gravest verdict of all, of those that judge."""
        return max((r.verdict for r in self.stored.results if r.verdict in LEVELS), key=LEVELS.index, default="OK")


@dataclass
class Evidence:
    """What else the store knows of one model at one radius, and the cells that it comes from."""

    worst: Share | None = None
    certified: Share | None = None
    diagnosis: Diagnosis | None = None
    cells: list[tuple[str, StoredCell]] = field(default_factory=list)


def evidence(stored: StoredCell, same_model: Sequence[StoredCell], diagnoses: Sequence[Diagnosis]) -> Evidence:
    """Everything that qualifies one cell's number.

    Args:
        same_model: all cells of its model on its data and device, of any attack seed.
        diagnoses: of any model, the one to be preferred first.
    """
    eps, found = stored.cell.eps, Evidence()
    if worst := worst_cases(stored.cell, same_model, 0).get(eps):
        found.worst = worst.share
        found.cells += [(f"worst case: {one.cell.protocol}, {one.cell.attack_label}", one) for one in worst.cells]
    if proofs := [one for one in same_model if one.certificate and one.cell.eps == eps]:
        found.certified = certified_share(*proofs)
        found.cells += [(one.cell.attack_label.replace(CERTIFICATE, "certified"), one) for one in proofs]
    key = stored.cell.key()
    found.diagnosis = next((diagnosis for diagnosis in diagnoses if key in diagnosis.cells), None)
    return found


def certified_share(*proofs: StoredCell) -> Share:
    """Of the images that all of them hold: classified correctly and by any proven to stay so in the whole ball."""
    each = [certified_right(one.outcomes).astype(bool) for one in proofs]
    n = min(map(len, each))
    return Share(int(np.logical_or.reduce([right[:n] for right in each]).sum()), n)


def diagnoses(folder: Path) -> tuple[list[Diagnosis], list[str]]:
    """Stored diagnoses, `diagnostics/<data set>/<model>/<case>/n<N>/<name>.json`, and what cannot be read.

    A cell can be in several cases, such as of other radii. The whole suite comes first, of several the one on the
    most images, of those the gravest.
    """
    found, problems = [], []
    for case in sorted(folder.glob("diagnostics/*/*/*")):
        try:
            found += [diagnosis for diagnosis in [_diagnosis(case)] if diagnosis]
        except (BenchError, KeyError, TypeError) as error:
            problems.append(f"{case}: {error}")
    return sorted(found, key=_weight, reverse=True), problems


def _diagnosis(case: Path) -> Diagnosis | None:
    """Raises KeyError or TypeError for content of another form, BenchError for a damaged file."""
    files = sorted(case.glob("n*/*.json"))
    if not files:
        return None
    identity = read_json(files[0])["identity"]
    stored = find_stored(case, identity_key(identity))
    return Diagnosis(frozenset(identity_key(cell) for cell in identity["cells"]), stored) if stored else None


def _weight(diagnosis: Diagnosis) -> tuple[int, int, int]:
    return len(diagnosis.stored.results), diagnosis.stored.n, LEVELS.index(diagnosis.gravest)


def radius(eps: Fraction) -> float:
    """In 255ths of the pixel range."""
    return float(255 * eps)

"""What a folder of findings amounts to: the one rule for which of several diagnoses of a case counts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE, Diagnostic
from bench.errors import BenchError
from bench.system.canonical import canonical
from bench.system.files import read_json


@dataclass(frozen=True)
class StoredDiagnosis:
    """The diagnostics of one case on the same images.

    Attributes:
        n: how many, the first of the test set.
        results: in the suite's order, of its current versions.
    """

    n: int
    results: list[DiagnosticResult]

    @property
    def whole(self) -> bool:
        """Whether it is the whole suite, without which nothing may be read from it."""
        return len(self.results) == len(SUITE)


def find_stored(folder: Path, key: str) -> StoredDiagnosis | None:
    """The whole suite on the most images there are; where it is nowhere whole, the most diagnostics of it.

    Args:
        folder: of a case, with a folder `n<N>` for each number of images.
        key: of the case's identity; results of another count as none.

    Returns:
        None where there is no result. Of equally many diagnostics, those on the most images.

    Raises:
        BenchError: a file is damaged.
    """
    names = (path.name[1:] for path in folder.glob("n*"))
    best: StoredDiagnosis | None = None
    for n in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        loaded = (load_result(folder, diagnostic, n, key) for diagnostic in SUITE.values())
        found = StoredDiagnosis(n, [result for result in loaded if result is not None])
        if found.whole:
            return found
        if len(found.results) > (len(best.results) if best else 0):
            best = found
    return best


def load_result(folder: Path, diagnostic: Diagnostic, n: int, key: str) -> DiagnosticResult | None:
    """What is stored for the first n images; None where there is nothing, or by another version or of another case.

    Raises BenchError for a damaged file.
    """
    path = result_path(folder, diagnostic.name, n)
    if not path.exists():
        return None
    content = read_json(path)
    if content.get("key") != key or content.get("version") != diagnostic.version:
        return None
    try:
        return DiagnosticResult.from_dict(content["result"])
    except (KeyError, TypeError) as error:
        raise BenchError(f"cannot read {path}: it holds no result; delete it and run again.") from error


def result_path(folder: Path, name: str, n: int) -> Path:
    return folder / f"n{n}" / f"{name}.json"


def identity_key(identity: Mapping[str, Any]) -> str:
    """SHA-256 of a case's canonical identity."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()

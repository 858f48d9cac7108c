"""Findings on disk: one file a diagnostic, beside the cells they qualify; and what a table prints of them."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.config import Config
from bench.diagnostics.case import Case, make_case
from bench.diagnostics.reading import Reading, read
from bench.diagnostics.result import Result
from bench.diagnostics.suite import SUITE, Diagnostic
from bench.environment import describe
from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.plan import Matrix, Row
from bench.training.job import canonical, slug

NOT_DIAGNOSED = "not diagnosed"


class Findings:
    """The stored results of one case: `<store>/diagnostics/<data set>/<model>/<protocol>-<key>/n<N>/<name>.json`."""

    def __init__(self, case: Case) -> None:
        self.identity = case.identity()
        self.key = hashlib.sha256(canonical(self.identity).encode()).hexdigest()
        where = case.config.paths.store / "diagnostics" / case.data.name / slug(case.row.label)
        self.folder = where / f"{slug(case.config.run.protocol)}-{self.key[:16]}"

    def load(self, diagnostic: Diagnostic, n: int) -> Result | None:
        """What is stored for the first n images; None where there is nothing, or by another version."""
        path = self._path(diagnostic.name, n)
        if not path.exists():
            return None
        content = read_json(path)
        if content.get("key") != self.key or content.get("version") != diagnostic.version:
            return None
        try:
            return Result.from_dict(content["result"])
        except (KeyError, TypeError) as error:
            raise BenchError(f"cannot read {path}: it holds no result; delete it and run again.") from error

    def save(self, diagnostic: Diagnostic, n: int, result: Result, seconds: float, request: dict[str, Any]) -> None:
        """Write one result, whole or not at all, with where and how it was made."""
        content = {
            "key": self.key,
            "identity": self.identity,
            "examples": n,
            "version": diagnostic.version,
            "result": result.as_dict(),
            "seconds": seconds,
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request,
            "environment": describe(),
        }
        write_json(self._path(diagnostic.name, n), content)

    def complete(self) -> list[Result] | None:
        """Every diagnostic of the suite, on the most images for which all are there."""
        for n in sorted(self._counts(), reverse=True):
            results = [self.load(diagnostic, n) for diagnostic in SUITE.values()]
            found = [result for result in results if result is not None]
            if len(found) == len(results):
                return found
        return None

    def _counts(self) -> Iterator[int]:
        for folder in self.folder.glob("n*"):
            if folder.name[1:].isdecimal():
                yield int(folder.name[1:])

    def _path(self, name: str, n: int) -> Path:
        return self.folder / f"n{n}" / f"{name}.json"


def stored_verdict(row: Row, matrix: Matrix, config: Config) -> Reading | None:
    """The reading of a table's row from the store; None: not (wholly) diagnosed at these radii and attacks."""
    if row.job is None or not row.cells:
        return None
    try:
        results = Findings(make_case(row, matrix, config)).complete()
    except BenchError:
        return None
    return read(results) if results else None

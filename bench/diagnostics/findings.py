"""Results of diagnostics on disk, one file each, beside the cells they qualify; and what a table prints of them."""

import time
from dataclasses import replace
from typing import Any

from bench.diagnostics.diagnosed_case import Case, make_case
from bench.diagnostics.overall_reading import Reading, read
from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.stored import StoredDiagnosis, find_stored, identity_key, load_result, result_path
from bench.diagnostics.suite import Diagnostic
from bench.errors import BenchError
from bench.execution.matrix_rows import Matrix, Row
from bench.settings.config import Config
from bench.system.canonical import slug
from bench.system.environment import describe
from bench.system.files import safe_name, under_any_model, write_json

NOT_DIAGNOSED = "not diagnosed"
ENOUGH_IMAGES = 100  # that a table's verdict rests on at least; or as many as the table has


class StoredResults:
    """The stored results of one case: `<store>/diagnostics/<data set>/<model>/<protocol>-<key>/n<N>/<name>.json`.

    Found by its key, whatever the model was called when it was diagnosed, as cells are.
    """

    def __init__(self, case: Case) -> None:
        self.identity = case.identity()
        self.key = identity_key(self.identity)
        where = case.config.paths.store / "diagnostics" / safe_name(case.data.name)
        name = f"{slug(case.config.run.protocol)}-{self.key[:16]}"
        self.folder = under_any_model(where / slug(case.row.label) / name)

    def load(self, diagnostic: Diagnostic, n: int) -> DiagnosticResult | None:
        """What is stored for the first n images; None where there is nothing, or by another version."""
        return load_result(self.folder, diagnostic, n, self.key)

    def save(
        self, diagnostic: Diagnostic, n: int, result: DiagnosticResult, seconds: float, request: dict[str, Any]
    ) -> None:
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
        write_json(result_path(self.folder, diagnostic.name, n), content)

    def complete(self) -> StoredDiagnosis | None:
        """Every diagnostic of the suite, on the most images for which all are there."""
        stored = find_stored(self.folder, self.key)
        return stored if stored and stored.whole else None


def stored_verdict(row: Row, matrix: Matrix, config: Config) -> Reading | None:
    """The reading of a table's row from the store; None: not (wholly) diagnosed at these radii and attacks."""
    if row.job is None or not row.cells:
        return None
    try:
        stored = StoredResults(make_case(row, matrix, config)).complete()
    except BenchError:
        return None
    # A diagnosis of a handful of images says nothing of the others.
    if stored is None or stored.n < min(ENOUGH_IMAGES, config.run.examples or ENOUGH_IMAGES):
        return None
    return replace(read(stored.results), n=stored.n)

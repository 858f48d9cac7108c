"""Running the diagnostics of one case: what is stored is taken from there, the rest is computed and stored."""

import time
from collections.abc import Sequence

from bench.diagnostics.diagnosed_case import Case, make_context
from bench.diagnostics.findings import StoredResults
from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import Diagnostic, diagnose
from bench.system.environment import make_exact, pick_device
from bench.system.progress import progress
from bench.system.threads import threads


def run_suite(case: Case, diagnostics: Sequence[Diagnostic], arguments: Sequence[str]) -> list[DiagnosticResult]:
    """Results in the order of the diagnostics, on the first --examples test images.

    Killing the process loses the diagnostic in flight.

    Args:
        arguments: the command line, kept with what is computed.
    """
    run, size = case.config.run, len(case.data.x_test)
    n = min(run.examples or size, size)
    findings = StoredResults(case)
    found = {diagnostic: findings.load(diagnostic, n) for diagnostic in diagnostics}
    missing = [diagnostic for diagnostic, result in found.items() if result is None]
    if missing:
        request = {"arguments": list(arguments), "resolved": case.config.model_dump(mode="json")}
        make_exact()
        with threads(1), progress(len(missing), f"diagnose {case.row.label}") as bar:
            context = make_context(case, n, pick_device(run.device))
            for diagnostic in missing:
                started = time.monotonic()
                result = diagnose(diagnostic, context)
                findings.save(diagnostic, n, result, time.monotonic() - started, request)
                found[diagnostic] = result
                bar.advance(note=diagnostic.name)
    return [result for result in found.values() if result is not None]

"""`bench diagnose`: is the evaluation of a model broken?"""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.request import Request, matrix_command, unless_given
from bench.errors import BenchError
from bench.settings.specs import split_list

if TYPE_CHECKING:
    from bench.diagnostics.result import DiagnosticResult

Model = Annotated[str | None, typer.Argument(metavar="MODELS", help="As --models.")]
Only = Annotated[str | None, typer.Option(help="Only these diagnostics, separated by commas.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 2 where any diagnostic is FAIL.")]
Form = Annotated[Literal["terminal", "json"], typer.Option(help="How the findings are written.")]


@matrix_command
def diagnose(
    request: Request, named: Model = None, only: Only = None, strict: Strict = False, format: Form = "terminal"
) -> None:
    """Is the evaluation of a trained model broken? Twenty-two diagnostics of attack and model, and their reading.

    Takes the options of `table`; --examples is 500 where it is not given.
    """
    request = unless_given(request, examples=500)
    if named:
        request = unless_given(request, models=split_list(named))
    merged, epochs, failures = request.config, request.epochs, request.failures
    from bench.diagnostics.diagnosed_case import check_trained, make_case
    from bench.diagnostics.overall_reading import read
    from bench.diagnostics.run import run_suite
    from bench.diagnostics.suite import SUITE, chosen
    from bench.execution.plan import plan_matrix
    from bench.execution.plan_cells import with_stored_cells
    from bench.system.environment import pick_device

    diagnostics = chosen(split_list(only or ""))
    matrix = plan_matrix(merged, epochs, failures)
    check_trained(matrix, merged, epochs)
    matrix = with_stored_cells(matrix, merged, pick_device(merged.run.device).type)
    whole, partly = len(diagnostics) == len(SUITE), f"partly diagnosed ({len(diagnostics)} of {len(SUITE)})"
    written, failed = [], []
    for row in matrix.rows:
        if row.failure:
            raise BenchError(row.failure)
        case = make_case(row, matrix, merged)
        results = run_suite(case, diagnostics, sys.argv[1:])
        reading = read(results)
        heading = f"{row.label} on {row.dataset}, protocol {merged.run.protocol}"
        failed += [f"{row.label} on {row.dataset}: {result.name}" for result in results if result.verdict == "FAIL"]
        if format == "terminal":
            typer.echo(_table(heading, results))
            typer.echo(f"{'Reading' if whole else partly}: {reading.sentence}\n")
        facts = {"model": row.label, "dataset": row.dataset, "protocol": merged.run.protocol}
        findings = [result.as_dict() for result in results]
        written.append(
            {**facts, "verdict": reading.name if whole else partly, "reading": reading.sentence, "results": findings}
        )
    if format == "json":
        typer.echo(json.dumps(written, indent=1, ensure_ascii=False))
    if strict and failed:
        raise BenchError(f"--strict: FAIL in {', '.join(failed)}.")
    if failures:
        raise BenchError(f"all done, but {len(failures)} plugin(s) failed: {failures[0]}")


def _table(heading: str, results: list["DiagnosticResult"]) -> str:
    from tabulate import tabulate

    rows = [
        [result.name, result.verdict, "" if result.value is None else f"{result.value:.3g}", result.n, result.sentence]
        for result in results
    ]
    header = ["diagnostic", "verdict", "value", "n", "what was found"]
    widths = [None, None, None, None, 78]
    return heading + "\n" + tabulate(rows, header, "simple", disable_numparse=True, maxcolwidths=widths) + "\n"

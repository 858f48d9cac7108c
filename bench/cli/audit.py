"""`bench audit`: does a published number hold? Every protocol, the certificate and the diagnosis, in one line."""

import sys
from typing import Annotated

import typer

from bench.cli import request as program
from bench.cli.request import Format, Request, asked_for, run_command, unless_given
from bench.errors import BenchError

NoRun = Annotated[bool, typer.Option("--no-run", help="Only what the store holds; compute nothing.")]
NoDiagnosis = Annotated[bool, typer.Option("--no-diagnosis", help="Leave diagnostics out that are not stored.")]


@run_command
def audit(
    request: Request, no_run: NoRun = False, no_diagnosis: NoDiagnosis = False, format: Format = "terminal"
) -> None:
    """Paper's number | paper protocol | paper-normalized | worst case | certified | verdict, a line per model and ε.

    Computes what the store lacks, under all three protocols, and diagnoses the paper's. --examples is 500 and --eps 8
    where they are not given; --protocol and --attacks are the command's own.
    """
    from bench.cli.printing import takes_colour
    from bench.diagnostics.diagnosed_case import make_case
    from bench.diagnostics.findings import NOT_DIAGNOSED, stored_verdict
    from bench.diagnostics.run import run_suite
    from bench.diagnostics.suite import SUITE
    from bench.execution.matrix_rows import Matrix
    from bench.execution.plan import plan_matrix
    from bench.execution.plan_cells import with_stored_cells
    from bench.execution.run import run_matrix
    from bench.settings.config import Config
    from bench.store.store import Store
    from bench.system.environment import pick_device
    from bench.system.progress import say
    from bench.tables.audit import PROTOCOLS, Who, make_audits, render_audits
    from bench.tables.table_lines import Line, make_lines

    if request.given["protocol"] or request.given["attacks"]:
        raise BenchError(
            "audit runs the protocols paper, paper-normalized and adaptive: leave --protocol, --attacks out."
        )
    request = unless_given(request, examples=500, eps=["8"])
    lines: dict[str, list[Line]] = {}
    verdicts: dict[Who, str] = {}
    planned: dict[str, tuple[Config, Matrix]] = {}
    failures = list(request.failures)
    for protocol in PROTOCOLS:
        config = request.config.model_copy(
            update={"run": request.config.run.model_copy(update={"protocol": protocol, "attacks": []})}
        )
        matrix = plan_matrix(config, request.epochs, request.failures)
        store = Store(config.paths.store)
        if no_run:
            matrix = with_stored_cells(matrix, config, pick_device(config.run.device).type)
        else:
            say(f"audit: protocol {protocol}")
            matrix, store = run_matrix(matrix, config, asked_for(config), no_train=False, debug=program.debugging)
        lines[protocol] = [line for line in make_lines(matrix.rows, store, config.run.examples) if line.robust]
        failures += [
            f"{row.label} on {row.dataset}, protocol {protocol}: {row.failure}" for row in matrix.rows if row.failure
        ]
        planned[protocol] = config, matrix
    # Last: a diagnosis takes the undefended twin, which protocol adaptive trains.
    config, matrix = planned["paper"]
    for row in matrix.rows:
        if not row.cells:
            continue
        if not (no_run or no_diagnosis):
            run_suite(make_case(row, matrix, config), list(SUITE.values()), sys.argv[1:])
        reading = stored_verdict(row, matrix, config)
        verdicts[row.dataset, row.label, row.train_seed] = reading.name if reading else NOT_DIAGNOSED
        if reading:
            say(f"{row.label} on {row.dataset}: {reading.sentence}")
    colour = format == "terminal" and takes_colour()
    typer.echo(render_audits(make_audits(lines, verdicts), format, colour), nl=False)
    if format in ("terminal", "markdown"):
        typer.echo(
            "\nPer cent of the first n test images that are right, clean and under attack (L∞), with 95 % Wilson "
            "interval.\nPaper printed: as published. Worst case: broken by any search of protocol adaptive at this "
            "radius or a smaller\none of this command. Verdict: what `bench diagnose` reads under the paper's protocol."
        )
    if failures:
        raise BenchError(" | ".join(dict.fromkeys(failures)))

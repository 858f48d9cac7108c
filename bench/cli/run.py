"""`bench run`: a model × attack × ε matrix, computed and printed."""

from typing import Annotated

import typer

from bench.cli import request as program
from bench.cli.request import Format, Request, asked_for, fail, run_command

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print cells, forwards and time it would cost; compute nothing.")
]
NoTrain = Annotated[bool, typer.Option("--no-train", help="Fail rows whose checkpoint is missing.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with code 2 where a number is unreliable (‡ in the table).")
]


@run_command
def run(
    request: Request,
    no_train: NoTrain = False,
    dry_run: DryRun = False,
    strict: Strict = False,
    format: Format = "terminal",
) -> None:
    """Evaluate a model × attack × ε matrix and print its table; trains what is missing."""
    from bench.cli.printing import print_cost, print_table
    from bench.execution.cost import estimate
    from bench.execution.plan import plan_matrix
    from bench.execution.run import run_matrix
    from bench.system.environment import pick_device

    config = request.config
    matrix = plan_matrix(config, request.epochs, request.failures)
    if dry_run:
        device = pick_device(config.run.device)
        matrix, costs = estimate(matrix, config, device)
        print_cost(costs, matrix, device)
        fail(matrix.failures, request.failures)
        return
    matrix, store = run_matrix(matrix, config, asked_for(config), no_train=no_train, debug=program.debugging)
    fail(print_table(matrix, store, config, format, strict=strict), request.failures)

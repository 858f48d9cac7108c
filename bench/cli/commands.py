"""The commands. Heavy imports stand inside, so that --help is instant."""

from typing import Annotated, Literal

import typer

from bench.cli.options import Checkpoints, ConfigFile, DataDir, DatasetNames, Plugin, settings
from bench.cli.request import Request, asked_for, job_command, run_command, stored_matrix
from bench.errors import BenchError

debugging = False

Format = Annotated[
    Literal["terminal", "markdown", "latex", "csv", "json"], typer.Option(help="How the table is written.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print cells, forwards and time it would cost; compute nothing.")
]
NoTrain = Annotated[bool, typer.Option("--no-train", help="Fail rows whose checkpoint is missing.")]
PaperTable = Annotated[
    Literal["1", "2", "3"] | None, typer.Argument(help="A table of the paper; none: the matrix of the options.")
]
Fill = Annotated[bool, typer.Option("--run", help="With 1, 2 or 3: compute, and train, what the table lacks.")]
Kind = Literal["models", "attacks", "datasets", "protocols", "recipes"]


@run_command
def run(
    request: Request,
    no_train: NoTrain = False,
    dry_run: DryRun = False,
    format: Format = "terminal",
) -> None:
    """Evaluate a model × attack × ε matrix and print its table; trains what is missing."""
    from bench.cli.printing import print_cost, print_table
    from bench.execution.plan import plan_matrix
    from bench.execution.run import run_matrix
    from bench.system.environment import pick_device

    config = request.config
    matrix = plan_matrix(config, request.epochs, request.failures)
    if dry_run:
        print_cost(matrix, config, pick_device(config.run.device))
        _fail([row.failure for row in matrix.rows if row.failure], request.failures)
        return
    results = run_matrix(matrix, config, asked_for(config), no_train, debugging)
    _fail(print_table(matrix, results, config, format), request.failures)


@job_command
def train(request: Request) -> None:
    """Train models; goes on where an earlier run was stopped."""
    from bench.cli.printing import print_cards
    from bench.execution.plan import plan_matrix
    from bench.execution.run import train_missing
    from bench.system.environment import pick_device

    config = request.config
    matrix = plan_matrix(config, request.epochs, request.failures, as_named=True)
    train_missing(matrix, config, pick_device(config.run.device), allowed=True, debug=debugging)
    print_cards(matrix, config)
    _fail([row.failure for row in matrix.rows if row.failure], request.failures)


@run_command
def table(request: Request, number: PaperTable = None, fill: Fill = False, format: Format = "terminal") -> None:
    """Print the table of a matrix, or Table 1, 2 or 3 of the paper, from the store. Takes the options of `run`."""
    given = request.given
    if number and (given["attacks"] or given["eps"]):
        raise BenchError(f"Table {number} has the paper's attacks and radii: leave --attacks and --eps out.")
    if fill and not number:
        raise BenchError("--run fills a table of the paper: `bench table 1 --run`; a matrix is filled by `bench run`.")
    if number:
        from bench.cli.paper_table import show_paper_table

        _fail(show_paper_table(int(number), request, fill, format, debugging), request.failures)
        return
    from bench.cli.printing import print_table

    matrix, store = stored_matrix(request)
    _fail(print_table(matrix, store, request.config, format), request.failures)


def list_names(
    kind: Annotated[Kind, typer.Argument()],
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """What there is: models, attacks, datasets, protocols or recipes."""
    merged, failures = settings(config, plugin, checkpoints=checkpoints)
    from bench.cli.printing import print_names

    print_names(kind, merged)
    _fail([], failures)


def check(
    name: Annotated[str, typer.Argument(help="A registered model, attack or data set.")],
    dataset: DatasetNames = None,
    data_dir: DataDir = None,
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """Run the contract suite on a model, attack or data set; every failure is explained in a sentence."""
    merged, failures = settings(config, plugin, datasets=dataset, data=data_dir, checkpoints=checkpoints)
    from bench.checks.suite import check_name

    findings = check_name(name, merged)
    for finding in findings:
        typer.echo(
            f"{'ok  ' if finding.passed else 'FAIL'}  {finding.what}{'' if finding.passed else ': ' + finding.why}"
        )
    broken = [finding.what for finding in findings if not finding.passed]
    _fail(
        [f"{name} breaks {len(broken)} of {len(findings)} points of its contract: {'; '.join(broken)}."]
        if broken
        else [],
        failures,
    )


def doctor(config: ConfigFile = None, plugin: Plugin = None) -> None:
    """Check the environment: versions, device, known traps; says how to repair what is wrong."""
    from bench.checks.installation import examine

    _, failures = settings(config, plugin)
    findings = examine()
    for finding in findings:
        typer.echo(f"{finding.state:<5} {finding.what}")
    _fail([finding.what for finding in findings if finding.state == "FAIL"], failures)


def _fail(problems: list[str], plugin_failures: list[str]) -> None:
    if problems:
        raise BenchError(" | ".join(dict.fromkeys(problems)))
    if plugin_failures:
        raise BenchError(f"all done, but {len(plugin_failures)} plugin(s) failed: {plugin_failures[0]}")

"""`bench export`: what the store holds, in the form of another project."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.request import Request, matrix_command, stored_matrix
from bench.errors import BenchError

Form = Annotated[Literal["robustbench"], typer.Argument(help="robustbench: its model_info JSON.")]
Out = Annotated[Path, typer.Option(help="Folder of the files: <data set>/Linf/<model>@<ε>.json.")]


@matrix_command
def export(request: Request, form: Form, out: Out = Path("model_info")) -> None:
    """Write a matrix' numbers from the store for another project; computes nothing. Takes the options of `run`."""
    from bench.system.files import write_json
    from bench.tables.robustbench_export import model_infos

    matrix, results = stored_matrix(request)
    problems = list(request.failures)
    for row in matrix.rows:
        infos = model_infos(row, results, request.config.run.examples)
        for path, info in infos.items():
            write_json(out / path, info)
            typer.echo(out / path)
        if not infos:
            problems.append(f"{row.label} on {row.dataset}: {row.failure or 'not in the store; `bench run` it first'}.")
    if problems:
        raise BenchError(" | ".join(problems))

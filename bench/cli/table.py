"""`bench table`: the table of a matrix, or one of the paper's, from the store."""

from typing import Annotated, Literal

import typer

from bench.cli import request as program
from bench.cli.request import Format, Request, fail, run_command, stored_matrix
from bench.errors import BenchError

PaperTable = Annotated[
    Literal["1", "2", "3"] | None, typer.Argument(help="A table of the paper; none: the matrix of the options.")
]
Fill = Annotated[bool, typer.Option("--run", help="With 1, 2 or 3: compute, and train, what the table lacks.")]


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

        fail(show_paper_table(int(number), request, fill, format, program.debugging), request.failures)
        return
    from bench.cli.printing import print_table

    matrix, store = stored_matrix(request)
    fail(print_table(matrix, store, request.config, format), request.failures)

"""`bench figure 3|4|curve|solver|images`: PNG and SVG from the store and the checkpoints."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.cli.request import Request, matrix_command, unless_given
from bench.errors import BenchError

Kind = Annotated[
    Literal["3", "4", "curve", "solver", "images"],
    typer.Argument(help="3, 4: the paper's; curve: one model under everything; solver: its residual; images: a grid."),
]
Out = Annotated[Path, typer.Option(help="Folder of the .png and .svg files.")]

# Figures of the paper are of its models; every other of [run].
DEFAULTS: dict[str, dict[str, Any]] = {
    "3": {"models": ["lyadeq-no-orth", "lyadeq"], "eps": ["8"], "examples": 500},
    "4": {
        "models": ["deq", "lyadeq", "lyadeq+trades", "resnet56", "resnet56+trades"],
        "eps": ["2", "4", "6", "8", "10", "12", "14", "16", "18", "20"],
    },
    "solver": {"eps": ["8"], "examples": 500},
    "images": {"eps": ["8"], "examples": 100},
}


@matrix_command
def figure(request: Request, kind: Kind, out: Out = Path("results/figures")) -> None:
    """Draw a figure, one for each data set. 4 and curve come from the store, 3, solver and images are computed."""
    request = unless_given(request, **DEFAULTS.get(kind, {}))
    from bench.figures.draw import draw

    paths, problems = draw(kind, request.config, request.epochs, request.failures, out)
    for path in paths:
        typer.echo(path)
    if not paths and not problems:
        problems = ["nothing to draw."]
    if problems or request.failures:
        raise BenchError(" | ".join([*problems, *request.failures]))

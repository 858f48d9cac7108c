"""`bench recheck`: the images that `run --keep-adversarial` kept, judged again."""

import shlex
import sys
from typing import Annotated, Literal

import typer

from bench.cli.request import Request, matrix_command, stored_matrix
from bench.errors import BenchError

Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 2 where a finding is FAIL.")]
Form = Annotated[Literal["terminal", "markdown", "csv", "json"], typer.Option("--format", help="How it is written.")]


@matrix_command
def recheck(request: Request, strict: Strict = False, form: Form = "terminal") -> None:
    """Judge kept adversarial images again: other batches, tighter and other solver, float64. Options as for `table`."""
    from bench.evaluation.input_space import space_of
    from bench.registry import protocol
    from bench.system.environment import make_exact, pick_device
    from bench.system.threads import threads
    from bench.tables.recheck_table import records, render
    from bench.verification.recheck import recheck as recheck_cell

    matrix, store = stored_matrix(request)
    run = request.config.run
    if space_of(protocol[run.protocol]) != "pixel":
        raise BenchError(f"recheck judges images, and protocol '{run.protocol}' attacks normalised tensors.")
    unable = next((row.failure for row in matrix.rows if row.failure), "")
    if unable:
        raise BenchError(unable)
    missing = [row for row in matrix.rows if any(store.missing(c, run.examples, images=True) for c in row.cells)]
    for row in [*(row for row in matrix.rows if not row.cells), *missing][:1]:
        raise BenchError(f"no kept images of {row.label} on {row.dataset}; make them with `{_making()}`.")
    make_exact()
    found = []
    with threads(1):  # as in a worker
        for row in matrix.rows:
            for cell in row.cells:
                device = str(pick_device(run.device))
                findings = list(recheck_cell(cell, store, matrix.data[row.dataset], device, run.examples))
                found += records(cell, findings)
    typer.echo(render(found, form), nl=False)
    failed = [f"{r['model']}, {r['attack']} at {r['eps']}: {r['what']}" for r in found if r["verdict"] == "FAIL"]
    if strict and failed:
        raise BenchError(f"{len(failed)} of {len(found)} findings FAIL: {'; '.join(failed)}.")
    if request.failures:
        raise BenchError(request.failures[0])


def _making() -> str:
    """The command that makes what is missing, from the one that was given."""
    given = sys.argv[sys.argv.index("recheck") + 1 :]
    own = {"--strict"} | {f"--format={form}" for form in ("terminal", "markdown", "csv", "json")}
    kept = [part for part, before in zip(given, ["", *given], strict=False) if "--format" not in (part, before)]
    kept = [part for part in kept if part not in own]
    return shlex.join(["python", "-m", "bench", "run", *kept, "--keep-adversarial"])

"""The program: its commands, and how mistakes end."""

import io
import sys
import traceback
from typing import Annotated

import typer

from bench import __version__
from bench.cli import request
from bench.cli.audit import audit
from bench.cli.check import check
from bench.cli.compact import compact
from bench.cli.diagnose import diagnose
from bench.cli.doctor import doctor
from bench.cli.export import export
from bench.cli.figure import figure
from bench.cli.list_names import list_names
from bench.cli.recheck import recheck
from bench.cli.report import report
from bench.cli.reproduce import reproduce
from bench.cli.run import run
from bench.cli.table import table
from bench.cli.train import train
from bench.cli.verify import verify
from bench.errors import BenchError, first_line
from bench.system.memory import prepare_memory

app = typer.Typer(
    name="bench",
    help="Adversarial robustness of deep equilibrium models: train, attack, compare.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run)
app.command("train")(train)
app.command("table")(table)
app.command("export")(export)
app.command("recheck")(recheck)
app.command("audit")(audit)
app.command("diagnose")(diagnose)
app.command("figure")(figure)
app.command("report")(report)
app.command("reproduce")(reproduce)
app.command("verify")(verify)
app.command("compact")(compact)
app.command("list")(list_names)
app.command("check")(check)
app.command("doctor")(doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program. A BenchError ends in one line on stderr and exit code 2."""
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        request.debugging = True
    prepare_memory()
    _speak_any_encoding()
    try:
        app()
    except BenchError as error:
        _end(error, str(error), 2)
    except KeyboardInterrupt as error:
        _end(error, "interrupted; what was finished is kept, the same command goes on from there.", 130)
    except Exception as error:
        _end(error, f"internal error, {first_line(error)}; --debug shows where.", 1)


def _speak_any_encoding() -> None:
    """A stdout that knows no ε (a console or a pipe of Windows has cp1252) gets a question mark in its place."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _end(error: BaseException, line: str, code: int) -> None:
    if request.debugging:
        traceback.print_exception(error)
    print(f"bench: {line}", file=sys.stderr)
    sys.exit(code)

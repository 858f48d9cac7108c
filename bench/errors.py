"""Errors that are meant for the user: one line that says what, where, and the fix."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches


class BenchError(Exception):
    """A mistake the user can mend. The command line prints its one line and exits with code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for a name that does not exist: a suggestion if one is close, else all there are."""
    names = sorted(known)
    prefixes = [
        other for other in names if len(other) > 2 and (name.startswith(other) or other.startswith(name or "\0"))
    ]
    close = prefixes[-1:] or get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return BenchError(f"unknown {kind} '{name}': {hint}there is {', '.join(names) or 'none'}.")


def first_line(error: BaseException) -> str:
    """An exception as one line, `Type: message`, for use inside a longer sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def first_line_or_traceback(error: BaseException, debug: bool) -> str:
    """`first_line` and how to see more; with `debug` more is shown at once, on stderr."""
    if debug:
        traceback.print_exception(error)
    return first_line(error) + ("" if debug else "; --debug shows where")

"""Progress of long work on stderr: a bar with its ETA on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

PLAIN_SECONDS = 10.0


class Progress:
    """Counts units of work done out of a total."""

    def __init__(self, total: int, label: str, bar: RichProgress | None) -> None:
        self.total, self.label, self.done = total, label, 0
        self._bar, self._start = bar, time.monotonic()
        self._said = self._start
        self._task = bar.add_task(label, total=total, note="", eta="-:--") if bar else None

    def advance(self, units: int = 1, note: str = "", left: float | None = None) -> None:
        """Count `units` done now; `note` stands behind the bar. `left` is how many seconds the rest will take, where
        the caller knows better than by what the units took so far."""
        self.done += units
        now = time.monotonic()
        if left is None:
            left = (now - self._start) / max(self.done, 1) * (self.total - self.done)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=units, note=note, eta=_clock(left))
            return
        if now - self._said >= PLAIN_SECONDS or (self.done >= self.total and now - self._start >= PLAIN_SECONDS):
            self._said = now
            print(
                f"{self.label}: {self.done}/{self.total} ({100 * self.done // max(self.total, 1)} %), "
                f"{_clock(left)} left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def skip(self, units: int) -> None:
        """Units found done already: they do not enter the ETA."""
        self.total -= units
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self.total)


@contextmanager
def progress(total: int, label: str) -> Iterator[Progress]:
    """A Progress over `total` units, shown until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(total, label, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta {task.fields[eta]}"),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=console) as bar:
        yield Progress(total, label, bar)


def say(line: str) -> None:
    """One plain line on stderr."""
    print(line, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

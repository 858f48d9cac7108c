"""Running the program as a user does: a process of its own, in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.cli.app import main
from bench.execution import worker
from bench.registry import attack, dataset, model

ROOT = Path(__file__).resolve().parents[2]

Done = subprocess.CompletedProcess[str]


def environment(folder: Path | None = None) -> dict[str, str]:
    """The environment of a user whose `bench` is this checkout (or the given folder)."""
    return {**os.environ, "PYTHONPATH": str(folder or ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *arguments]


def bench(folder: Path, *arguments: str, code: int = 0, package: Path | None = None) -> Done:
    """Run `python -m bench …` in `folder` and expect an exit code."""
    done = subprocess.run(
        command(*arguments), cwd=folder, env=environment(package), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Inside:
    """The same program inside this process, in a folder: for what needs no process of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        worker._models.clear()  # another test's folder may hold the same model under the same relative path
        for registry in (model, attack, dataset):
            len(list(registry))  # the built-in ones are there before the copy is made
            monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    def __call__(self, folder: Path, *arguments: str, code: int = 0) -> Done:
        """Run `bench …` with one worker and expect an exit code."""
        self.monkeypatch.chdir(folder)
        self.monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        self.monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        self.capsys.readouterr()
        found = 0
        try:
            main()
        except SystemExit as error:
            found = int(error.code or 0)
        out, err = self.capsys.readouterr()
        assert found == code, f"exit {found}\n{out}\n{err}"
        return Done(arguments, found, out, err)


def last_line(done: Done) -> str:
    """What the program ended with: its one line on stderr."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("bench: ")]
    assert lines, done.stderr
    assert "Traceback" not in done.stderr
    return lines[-1]


def store_content(store: Path) -> dict[str, object]:
    """Every shard's outcomes, bit for bit, by its path; the budget, which holds seconds, is left out."""

    def columns(path: Path) -> dict[str, bytes]:
        table = pq.read_table(path)
        return {name: table[name].to_numpy().tobytes() for name in table.column_names}

    return {str(path.relative_to(store)): columns(path) for path in sorted(store.rglob("*.parquet"))}


def cell_folders(store: Path) -> list[Path]:
    return sorted(path.parent for path in store.rglob("key.json"))


def leftovers(store: Path) -> Sequence[Path]:
    """Files that only a run in progress may have."""
    return [path for path in store.rglob(".*") if path.is_file()]

"""What other systems lack or refuse: an encoding for ε, the affinity of a process, names of devices, open files."""

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.cli.app import main
from bench.data.load import Dataset
from bench.execution.run import _workers
from bench.settings.config import Config
from bench.store.cells import Cell, Source
from bench.store.identity import CellIdentity, ModelIdentity
from bench.store.store import Store
from bench.system.canonical import slug
from bench.system.environment import cores
from bench.system.files import safe_name
from bench.training.loop import training_threads
from tests.bench.helpers import Inside, cell_folders, command, environment
from tests.conftest import job_for

QUICK = (
    "--models",
    "fc-linear",
    "--epochs",
    "0",
    "--eps",
    "8",
    "--attacks",
    "ifgsm",
    "--examples",
    "2",
    "--workers",
    "1",
)
ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "cp1252, strictly": {"PYTHONIOENCODING": "cp1252:strict"},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stdout_without_greek(encoding: str, tmp_path: Path) -> None:
    variables = {**environment(), **ENCODINGS[encoding]}
    done = subprocess.run(command("run", *QUICK), cwd=tmp_path, env=variables, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # Where a terminal seems to know no more than ASCII, click writes UTF-8.
    assert ("ε" if encoding == "ascii" else "?").encode() + b" = 8/255" in done.stdout


def test_a_stdout_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, or where a window has none."""
    said: list[str] = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=said.append, flush=lambda: None, encoding="cp1252"))
    monkeypatch.setattr(sys, "argv", ["bench", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and said


def test_without_an_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == _workers(0, torch.device("cpu")) == training_threads(nn.Conv2d(1, 1, 1)) == 6
    assert training_threads(nn.Linear(1, 1)) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert cores() == 2


def test_a_run_without_an_affinity(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    real = monkeypatch.setattr

    def but_for_affinity(target: Any, name: Any, *value: Any, **options: Any) -> None:
        if name != "sched_getaffinity":
            real(target, name, *value, **options)

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(inside.monkeypatch, "setattr", but_for_affinity)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    inside(tmp_path, "run", *QUICK[:-2])


def windows_takes(part: str) -> bool:
    """Whether a file or folder of this name can be made on Windows."""
    return (
        bool(part)
        and not re.search(r'[<>:"/\\|?*\x00-\x1f]', part)
        and part[-1] not in " ."
        and not PureWindowsPath(part).is_reserved()
    )


REFUSED = [
    "CON",
    "con",
    "nul",
    "Aux.net",
    "COM1",
    "lpt9",
    "prn.",
    "a:b",
    "a.",
    "a ",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "x?",
    "CON .x",
]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_windows_refuses(name: str, digits: Dataset, config: Config) -> None:
    assert not windows_takes(name)
    assert windows_takes(safe_name(name)) and windows_takes(slug(name) or "x")
    job = job_for("fc-linear", digits, config)
    identity = CellIdentity(
        model=ModelIdentity("fc-linear", "1", {}, "w"), dataset=name, test_hash="h", protocol="paper",
        protocol_implementation="1", attack=name, attack_implementation="1", attack_options={}, eps=Fraction(8, 255),
        seed=0, device="cpu", engine="packed", engine_version=2, batch=250,
    )  # fmt: skip
    cell = Cell(Source(name, "fc-linear", {}, "", 0), identity, 10, name)
    places = [cell.folder(), str(job.checkpoint(Path()))]
    assert all(windows_takes(part) for place in places for part in place.split("/"))


@given(st.text(max_size=90))
def test_every_name_becomes_one_that_every_system_takes(name: str) -> None:
    assert windows_takes(safe_name(name)) and safe_name(safe_name(name)) == safe_name(name)


@pytest.mark.parametrize(
    "name", ["digits", "mnist", "cifar10", "my-set", "my_set", "my set", "käse", "v1.2", "console", "a=b+c"]
)
def test_names_that_are_fine_stay(name: str) -> None:
    assert safe_name(name) == name


def test_a_data_set_and_a_model_called_like_devices(tmp_path: Path, inside: Inside, digits: Dataset) -> None:
    import numpy as np

    x, y = digits.x_train[:100].numpy(), digits.y_train[:100].numpy()
    np.savez(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "bench.toml").write_text('[models.nul]\narch = "fc-linear"\n[datasets."aux/con"]\npath = "some.npz"\n')
    options = ("--models", "nul", "--dataset", "aux/con", *QUICK[2:])
    inside(tmp_path, "run", *options)
    assert "nul" in inside(tmp_path, "table", *options).stdout
    inside(tmp_path, "report", "--out", "page.html")
    assert "nul" in (tmp_path / "page.html").read_text(encoding="utf-8")
    made = [path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*")]
    assert made and all(windows_takes(part) for path in made for part in path.parts)
    assert len(cell_folders(tmp_path / "results/store")) == 1


def test_a_lock_that_cannot_be_deleted_while_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, real, refused = FileLock(tmp_path / "x.lock"), Path.unlink, []
    lock.acquire()

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if lock.is_locked:
            refused.append(self)
            raise PermissionError(13, "it is being used by another process")
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    Store(tmp_path).release(lock)
    assert refused and not lock.is_locked and not (tmp_path / "x.lock").exists()

"""The shared options of commands: declared once, the same everywhere, and handed over as one configuration."""

from pathlib import Path

import pytest
import typer.main

from bench.cli.app import app
from bench.cli.request import _OF_CELLS, _OF_RUNS, _OPTIONS
from tests.bench.helpers import Inside

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["run", "table", "export", "recheck", "train"])
def test_commands_on_a_matrix_take_the_same_options(name: str) -> None:
    found = {parameter.name: parameter for parameter in COMMANDS[name].params}
    expected = (
        set(_OPTIONS) - (set() if name in ("run", "table") else _OF_RUNS) - (_OF_CELLS if name == "train" else set())
    )
    assert expected <= set(found) and not (set(_OPTIONS) - expected) & set(found)
    reference = {parameter.name: parameter for parameter in COMMANDS["run"].params}
    assert all(found[option].opts == reference[option].opts for option in expected)
    assert all(found[option].help for option in expected)
    assert COMMANDS[name].help


def test_every_seed_is_trained(tmp_path: Path, inside: Inside) -> None:
    out = inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "0", "--seeds", "3,1").stdout
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["3", "1"]

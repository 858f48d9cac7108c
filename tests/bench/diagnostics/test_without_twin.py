"""A diagnosis without the undefended twin: what needs it is n/a and says how to come by it, the others run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.bench.helpers import Inside, last_line

COLOURS = """
from torch import nn
from bench.registry import model
@model("colour-net")
def colour(images, *, features: str = "auto"):
    '''A network of somebody else's.'''
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, images.classes))
"""
BASE = ("diagnose", "theirs", "--dataset", "colours", "--eps", "8", "--examples", "40", "--plugin", "net.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A colour data set of four classes, and a network with weights of its own."""
    rng, y = np.random.default_rng(0), np.arange(200) % 4
    x = rng.integers(0, 100, (200, 3, 8, 8), dtype=np.uint8)
    for k in range(4):
        x[y == k, :, 2 * k : 2 * k + 2] += 100
    np.savez(tmp_path / "colours.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(x) / 255), torch.tensor(y)).backward()
        optimizer.step()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    (tmp_path / "net.py").write_text(COLOURS)
    own = 'arch = "colour-net"\ncheckpoint = "net.pt"\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    (tmp_path / "bench.toml").write_text(
        f'[datasets.colours]\npath = "colours.npz"\n[models.theirs]\n{own}'
        f'[models.other]\n{own}options.features = "none"\n'
    )
    return tmp_path


def results(out: str) -> dict[str, Any]:
    return {result["name"]: result for result in json.loads(out)[0]["results"]}


def test_diagnostics_that_need_no_twin_run(folder: Path, inside: Inside) -> None:
    found = results(inside(folder, *BASE, "--only", "gradient,determinism,zero-budget", "--format", "json").stdout)
    assert {name: result["verdict"] for name, result in found.items()} == dict.fromkeys(found, "OK")
    assert set(found) == {"gradient", "determinism", "zero-budget"}
    assert not list(folder.rglob("resnet20*")), "nothing was trained"


def test_those_that_need_one_say_how_to_come_by_it(folder: Path, inside: Inside) -> None:
    found = results(inside(folder, *BASE, "--only", "canary,transfer,one-step", "--format", "json").stdout)
    for name in ("canary", "transfer"):
        assert found[name]["verdict"] == "n/a"
        assert "`python -m bench train --models 'resnet20' --dataset colours`" in found[name]["sentence"]
    assert found["one-step"]["verdict"] != "n/a"


def test_once_it_is_trained_it_is_used(folder: Path, inside: Inside) -> None:
    only = ("--only", "canary,transfer", "--format", "json")
    assert results(inside(folder, *BASE, *only).stdout)["canary"]["verdict"] == "n/a"
    inside(folder, "train", "--models", "resnet20", "--dataset", "colours", "--epochs", "0")
    found = results(inside(folder, *BASE, *only).stdout)
    assert found["canary"]["verdict"] != "n/a" and found["transfer"]["verdict"] != "n/a"


def test_a_model_for_which_no_twin_is_registered(folder: Path, inside: Inside) -> None:
    other = (BASE[0], "other", *BASE[2:])
    found = results(inside(folder, *other, "--only", "canary,determinism", "--format", "json").stdout)
    assert found["determinism"]["verdict"] == "OK" and found["canary"]["verdict"] == "n/a"
    assert "no model is registered with twin_of='none'" in found["canary"]["sentence"].replace("No model", "no model")


def test_an_attack_that_starts_from_the_twin_still_needs_it(folder: Path, inside: Inside) -> None:
    said = last_line(inside(folder, *BASE, "--protocol", "adaptive", "--only", "determinism", code=2))
    assert "no checkpoint of resnet20 on colours" in said and "python -m bench train --models 'resnet20'" in said


def test_a_view_is_tried_without_the_twin(folder: Path, inside: Inside) -> None:
    inside(folder, "train", "--models", "deq", "--epochs", "1")
    options = ("diagnose", "deq", "--epochs", "1", "--eps", "16", "--examples", "30", "--only", "transfer")
    found = results(inside(folder, *options, "--format", "json").stdout)["transfer"]
    assert found["verdict"] != "n/a" and "undefended twin" not in found["sentence"]
    assert "'fc-linear" in found["evidence"]["not tried"]

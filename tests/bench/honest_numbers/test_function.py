"""What a model computes from files and attributes that its weights' hash does not know is noticed when it changes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bench.helpers import Done, bench

PLUGIN = """
from pathlib import Path
import torch
from torch import nn
from bench.registry import model

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.load(Path(__file__).parent / "hidden.pt")

    def forward(self, x):
        return (x.flatten(1) @ self.scale)

@model("hidden", pretrained=True)
def hidden(images):
    '''Its weights are in a plain attribute.'''
    return Hidden()
"""
ANEW = "Computed anew"


@pytest.fixture
def place(tmp_path: Path, folder: Path) -> Path:
    for name in ("few.npz", "bench.toml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "hidden.py").write_text(PLUGIN)
    draw(tmp_path, 0)
    return tmp_path


def draw(place: Path, seed: int) -> torch.Tensor:
    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(seed))
    torch.save(weights, place / "hidden.pt")
    return weights


def run(place: Path) -> tuple[Done, float]:
    done = bench(place, "run", "--plugin", "hidden.py", "--models", "hidden", "--attacks", "ifgsm", "--format", "json")
    return done, next(r["accuracy"] for r in json.loads(done.stdout) if r["eps"] == "0")


def test_a_changed_function_is_computed_anew_and_said_once(place: Path) -> None:
    _, first = run(place)
    again, same = run(place)
    assert same == first and ANEW not in again.stderr
    weights = draw(place, 1)
    changed, other = run(place)
    assert changed.stderr.count(ANEW) == 1
    with np.load(place / "few.npz") as data:
        x, y = (torch.from_numpy(data[name]) for name in ("x_test", "y_test"))
    clean = 100 * float(((x.float() / 255).flatten(1) @ weights).argmax(1).eq(y).float().mean())
    assert other == pytest.approx(clean) and other != first
    settled, last = run(place)
    assert last == other and ANEW not in settled.stderr


def test_a_cell_without_the_record_is_taken_as_it_is(place: Path) -> None:
    _, first = run(place)
    for path in place.rglob("manifest.json"):
        content = json.loads(path.read_text())
        assert content.pop("function") and content.pop("notes") == []
        path.write_text(json.dumps(content))
    draw(place, 1)
    done, same = run(place)
    assert same == first and ANEW not in done.stderr


def test_rounding_is_no_change(place: Path) -> None:
    run(place)
    torch.save(draw(place, 0) * (1 + 1e-6), place / "hidden.pt")
    assert ANEW not in run(place)[0].stderr

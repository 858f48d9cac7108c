"""`bench figure`: every kind is drawn, the same every time, says what it is, and says what it lacks."""

import hashlib
import json
import math
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image

from bench.data.load import Dataset
from bench.execution.matrix_rows import AttackPlan, Row
from bench.figures.curves import figure_4
from bench.figures.recompute import Attacked, attack_first
from bench.figures.series import Series
from bench.figures.style import COLOURS, DASHES, MARKERS, series_style
from bench.registry import attack as attacks
from bench.registry import protocol as protocols
from bench.settings.config import Config
from bench.statistics import Share
from bench.store.identity import CellIdentity
from bench.store.store import Store
from bench.store.stored_cells import inventory
from tests.bench.helpers import Inside, bench, last_line

BASE = ("--models", "deq,lyadeq", "--epochs", "2", "--examples", "60")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    bench(folder, "run", *BASE, "--eps", "4,16", "--workers", "1")
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy of the same store and checkpoints."""
    shutil.copytree(done / "results", tmp_path / "results")
    return tmp_path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def caption(svg: Path) -> str:
    """Text is drawn as paths in an SVG; matplotlib leaves each line of it in a comment."""
    return " ".join(re.findall(r"<!-- (.*?) -->", svg.read_text()))


@pytest.mark.parametrize("kind", ["3", "4", "curve", "solver", "images"])
def test_every_kind(kind: str, folder: Path, inside: Inside) -> None:
    eps = ("--eps", "4,16") if kind == "4" else ("--eps", "16") if kind != "curve" else ()
    made = inside(folder, "figure", kind, *BASE, *eps, "--out", "a").stdout.split()
    assert sorted(Path(path).suffix for path in made) == [".png", ".svg"]
    png, svg = (next(folder / path for path in made if path.endswith(end)) for end in (".png", ".svg"))
    pixels = image.imread(png)
    assert pixels.shape[1] > 1200 and float(pixels[..., :3].std()) > 0.05, "not an empty page"
    text = caption(svg)
    assert "digits" in text and "n = 60" in text and ("ε" in text or "radius" in text)
    assert "deq" in text and "lyadeq" in text
    inside(folder, "figure", kind, *BASE, *eps, "--out", "b")
    for path in (png, svg):
        assert digest(path) == digest(folder / "b" / path.name), "drawn twice, the same bytes"


def test_points_are_joined_only_where_nothing_lies_between_and_as_many_images_are_behind_them() -> None:
    def points(n: int, *radii: int) -> dict[Fraction, Share]:
        return {Fraction(radius, 255): Share(n // 2, n) for radius in radii}

    weak = Series("digits", "deq", "paper", "PGD", points(500, 2, 4) | points(100, 8, 16, 24))
    figure, text = figure_4("digits", [weak], {"deq": points(500, 2, 4, 24)})
    drawn = [tuple(np.asarray(line.get_xdata(), float).tolist()) for line in figure.axes[0].get_lines()]
    joined = dict.fromkeys(tuple(None if math.isnan(x) else round(x) for x in line) for line in drawn)
    assert list(joined) == [(2, 4, None, 8, 16, 24), (2, 4, None, 24)]
    assert "n = 100 to 500" in text and "No worst case" not in text
    assert "No worst case is shown" in figure_4("digits", [weak], {})[1]


def test_what_a_figure_lacks_is_said(folder: Path, inside: Inside) -> None:
    done = inside(folder, "figure", "curve", "--models", "deq,resnet20", "--examples", "60", "--out", "a", code=2)
    assert "resnet20 on digits is left out: it has no checkpoint" in last_line(done)
    assert "curve-digits.png" in done.stdout
    done = inside(folder, "figure", "4", *BASE, "--protocol", "standard", "--eps", "4", "--out", "a", code=2)
    assert "not in the store" in last_line(done) and "--protocol standard" in last_line(done)
    inside(folder, "train", "--models", "fc-linear", "--epochs", "1")
    done = inside(folder, "figure", "solver", "--models", "fc-linear", "--out", "a", code=2)
    assert "fc-linear has no equilibrium solver" in last_line(done)
    done = inside(folder, "figure", "3", *BASE, "--protocol", "paper-normalized", "--out", "a", code=2)
    assert "does not attack images" in last_line(done)


@pytest.mark.parametrize("kind", ["4", "curve"])
def test_the_worst_case_is_drawn_where_a_strong_attack_ran(kind: str, folder: Path, inside: Inside) -> None:
    command = ("figure", kind, *BASE, *(("--eps", "4,16") if kind == "4" else ()), "--out", "a")
    name = f"a/{'figure-4' if kind == '4' else 'curve'}-digits.svg"
    inside(folder, *command)
    assert "broken by any attack" not in caption(folder / name)
    store = Store(folder / "results/store")
    one = next(one for one in inventory(store)[0] if (one.label, one.cell.attack) == ("deq", "pgd"))
    options = attacks["autoattack"].resolve(protocols["standard"].target(one.cell.eps)["autoattack"])
    identity = {
        **one.cell.identity.to_json(),
        "protocol": {"name": "standard", "implementation": "1"},
        "attack": {"name": "autoattack", "implementation": "1", "options": options},
    }
    cell = replace(one.cell, identity=CellIdentity.from_json(identity))
    shutil.copytree(store.cell_folder(one.cell), store.folder / cell.folder())
    (store.folder / cell.folder() / "key.json").write_text(json.dumps(identity))
    inside(folder, *command)
    assert "broken by any attack on pixels" in caption(folder / name)


def test_training_seeds_are_told_apart(folder: Path, inside: Inside) -> None:
    options = ("--models", "fc-linear", "--epochs", "1", "--examples", "60", "--seeds", "0,1")
    inside(folder, "run", *options, "--eps", "8")
    inside(folder, "figure", "curve", *options, "--out", "a")
    text = caption(folder / "a/curve-digits.svg")
    assert "fc-linear, seed 0" in text and "fc-linear, seed 1" in text


def test_the_images_are_those_of_the_store(folder: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacked anew, the same predictions as the outcomes hold."""
    from bench.figures import draw

    seen = list[Attacked]()

    def watched(row: Row, plan: AttackPlan, data: Dataset, config: Config, examples: int) -> Attacked:
        seen.append(attack_first(row, plan, data, config, examples))
        return seen[-1]

    monkeypatch.setattr(draw, "attack_first", watched)
    inside(folder, "figure", "images", *BASE, "--eps", "16", "--out", "a")
    stored = {(o.label, o.cell.attack, float(o.cell.eps)): o for o in inventory(Store(folder / "results/store"))[0]}
    for one in seen:
        outcomes = stored[one.row.label, "pgd", 16 / 255].outcomes
        right = torch.from_numpy(outcomes["clean"] == outcomes["label"])[:60]  # the engine attacks no others
        assert right.sum() > 20 and torch.equal(
            one.after[right], torch.from_numpy(outcomes["adversarial"][:60]).long()[right]
        )
        assert one.broken.any() and torch.equal(one.broken, torch.from_numpy(outcomes["broken"][:60]))


def test_series_differ_in_colour_dashes_and_marker() -> None:
    assert len(set(COLOURS)) == len(set(DASHES)) == len(set(MARKERS)) == 7
    assert len({series_style(i) for i in range(7)}) == 7

    def luminance(colour: str) -> float:
        r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    assert max(map(luminance, COLOURS)) < 0.75, "dark enough for white paper"

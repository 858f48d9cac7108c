"""Protocols through the harness: the space they attack in, their keys, captions and costs."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import ifgsm, pgd
from bench.data.load import Dataset
from bench.errors import BenchError
from bench.evaluation.batch import Batch, examples_of
from bench.evaluation.input_space import in_space, space_of
from bench.evaluation.reference_engine import evaluate
from bench.execution.plan import plan_attacks
from bench.registry import attack, protocol
from bench.tables.table_lines import robust_share
from tests.attacks.test_gradient_sign import EPS, torchattacks_pgd
from tests.bench.helpers import Inside, cell_folders, last_line
from tests.conftest import Trained

N = 64

UNSPLIT = '''
from torch import nn
from bench.registry import model

@model("unsplit")
def unsplit(images):
    """No normalize, no body."""
    channels, height, width = images.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, images.classes))
'''


@pytest.mark.parametrize("name", ["fc-linear", "deq", "lyadeq"])
@pytest.mark.parametrize("search", [ifgsm, pgd])
def test_normalised_is_torchattacks_on_the_body(
    name: str, search: Any, trained: Trained, digits: Dataset, images: tuple[Tensor, Tensor]
) -> None:
    """To the bit, on `model.body`, on normalised tensors, from the same random start; judged there."""
    net, y, found = trained(name), images[1][:N], []
    x = net.normalize(images[0][:N])
    assert float(x.min()) < 0 and float(x.max()) > 1, "the clamps have something to do"

    def watched(*arguments: Any) -> Tensor:
        found.append(search(*arguments))
        return found[-1]

    batch = Batch(digits.x_test[:N], y, range(N), lambda rows: Draws(0, "digits", rows))
    outcomes = evaluate(net, watched, batch, EPS, classes=10, batch_size=N, space="normalised").outcomes
    if search is pgd:
        peer = torchattacks_pgd(net.body, x, y, Draws(0, "digits", range(N)).unit(x.shape[1:]) * EPS)
    else:
        peer = torchattacks.BIM(net.body, eps=EPS, alpha=1 / 255, steps=10)(x, y)
    assert torch.equal(found[0], peer)
    with torch.no_grad():
        assert np.array_equal(outcomes["adversarial"], net.body(peer).argmax(1).numpy())
        assert np.array_equal(outcomes["clean"], net(images[0][:N]).argmax(1).numpy())
    moved = ((peer - x).abs() * net.normalize.get_buffer("std")).flatten(1).amax(1)
    assert np.array_equal(outcomes["linf"], moved.numpy())
    assert (outcomes["linf"] > 2 * EPS).any(), "the clamp leaves the ball"


def test_the_control_is_flat_where_the_attack_is_not(trained: Trained, digits: Dataset) -> None:
    """What the control is for: beyond the clamp, a larger ε hardly matters."""

    def robust(eps: Fraction, name: str) -> float:
        how = protocol[name]
        found = evaluate(
            trained("fc-linear"),
            lambda *arguments: pgd(*arguments, **how.target(eps)["pgd"]),
            examples_of(digits, range(len(digits.x_test)), seed=0),
            float(eps),
            classes=10,
            batch_size=250,
            space=space_of(how),
        )
        return robust_share(found.outcomes).percent

    small, large = Fraction(2, 255), Fraction(16, 255)
    assert robust(small, "paper") - robust(large, "paper") > 10
    assert abs(robust(small, "paper-normalized") - robust(large, "paper-normalized")) < 5


def test_what_each_protocol_plans() -> None:
    eps = Fraction(8, 255)
    assert protocol["paper-normalized"].target(eps) == protocol["paper"].target(eps)
    assert [plan.label for plan in plan_attacks("paper-normalized", [], [eps])] == ["I-FGSM (control)", "PGD (control)"]
    assert [plan.label for plan in plan_attacks("paper", [], [eps])] == ["I-FGSM", "PGD"]
    standard = plan_attacks("standard", [], [eps])
    assert [plan.label for plan in standard] == ["AutoAttack"]
    assert standard[0].options == attack["autoattack"].defaults()
    assert [space_of(protocol[name]) for name in ("paper", "standard")] == ["pixel", "pixel"]


def test_a_model_without_the_split_has_no_such_row() -> None:
    with pytest.raises(BenchError, match="cannot be evaluated under a protocol that attacks normalised tensors"):
        in_space(nn.Linear(2, 2), "normalised")


def test_the_control_says_so_everywhere(tmp_path: Path, inside: Inside) -> None:
    base = ("--models", "fc-linear", "--eps", "8", "--epochs", "2", "--examples", "1")
    pixel = inside(tmp_path, "run", *base).stdout
    assert "control" not in pixel.lower() and "pixel space" in pixel
    command = (*base, "--protocol", "paper-normalized")
    terminal = inside(tmp_path, "run", *command).stdout
    assert len(cell_folders(tmp_path / "results/store")) == 4, "no cell answers for another protocol"
    for text in (terminal, inside(tmp_path, "table", *command, "--format", "markdown").stdout):
        assert "CONTROL, NOT A MEASURE OF ROBUSTNESS" in text and "in pixel space" not in text
    for form in ("latex", "csv", "json"):
        assert "PGD (control)" in inside(tmp_path, "table", *command, "--format", form).stdout
    keys = [json.loads((folder / "key.json").read_text()) for folder in cell_folders(tmp_path / "results/store")]
    found = {(key["protocol"]["name"], key["protocol"]["implementation"], key["attack"]["name"]) for key in keys}
    assert found == {(p, "1", a) for p in ("paper", "paper-normalized") for a in ("ifgsm", "pgd")}


def test_the_row_of_a_model_without_the_split(tmp_path: Path, inside: Inside) -> None:
    plugin = tmp_path / "unsplit.py"
    plugin.write_text(UNSPLIT)
    matrix = ("--models", "unsplit,fc-linear", "--eps", "8", "--epochs", "1", "--examples", "1")
    base = ("run", *matrix, "--protocol", "paper-normalized", "--plugin", str(plugin))
    for failed in (inside(tmp_path, *base, code=2), inside(tmp_path, *base, "--dry-run", code=2)):
        assert "unsplit" in last_line(failed) and "not split into `normalize`" in last_line(failed)
        assert "fc-linear" in failed.stdout


def test_dry_run_of_autoattack(tmp_path: Path, inside: Inside) -> None:
    """Counted as if nothing fell: APGD's steps on 10 targets, FAB's, and those queries of Square that change the image.

    On 8×8 pixels of one channel these are a little more than half.
    """
    base = ("run", "--models", "fc-linear", "--eps", "2,8", "--protocol", "standard", "--dry-run")
    out = inside(tmp_path, *base).stdout
    assert "at most about" in out and "AutoAttack: as if no image fell" in out
    row = next(line for line in out.splitlines() if "fc-linear" in line).split("  ")
    forwards, backwards = (int(part.replace(",", "")) for part in row if part.count(",") == 2)
    assert backwards == 2 * 359 * (101 + 9 * 101 + 9 * 100)
    assert backwards + 2 * 359 * (2500 + 900) < forwards < backwards + 2 * 359 * (3500 + 900)


def test_autoattack_through_the_store(tmp_path: Path, inside: Inside) -> None:
    base = ("--models", "fc-linear", "--eps", "16", "--epochs", "3", "--examples", "1", "--protocol", "standard")
    short = "autoattack[iterations=5,targets=2,queries=20]"
    out = inside(tmp_path, "run", *base, "--attacks", short).stdout
    assert "AutoAttack[iterations=5,queries=20,targets=2]" in out
    columns = pq.read_table(next(tmp_path.rglob("*.parquet"))).to_pandas()
    assert ((columns.broken_by >= 0) == columns.broken).all() and columns.broken.any()
    failed = inside(tmp_path, "run", *base, "--attacks", "autoattack[attacks=fab]", code=2)
    assert "join by + each at most once" in last_line(failed)


def test_bench_check_autoattack(tmp_path: Path, inside: Inside) -> None:
    out = inside(tmp_path, "check", "autoattack[iterations=10,queries=50]").stdout
    assert out.count("ok  ") == 5 and "FAIL" not in out

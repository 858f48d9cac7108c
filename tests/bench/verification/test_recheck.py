"""Kept images are those that were judged, bit for bit, and judging them again finds what was planted."""

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import eq14_steps, pgd
from bench.data.load import Dataset
from bench.settings.radii import parse_eps
from tests.bench.helpers import Inside, cell_folders, last_line, store_content

MATRIX = ("--models", "fc-linear", "--eps", "8", "--epochs", "2", "--attacks", "pgd")

# Its logits depend on how many images stand beside one, which the contract forbids.
MOODY = """
import torch
from torch import nn
from bench.registry import model
from bench.models.images import Classifier

class Moody(Classifier):
    def forward(self, x):
        return super().forward(x) + 100 * (len(x) == 1) * torch.eye(10)[3]

@model("moody")
def moody(images):
    '''Sure of class 3 when alone.'''
    return Moody(images, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
"""


def kept(folder: Path) -> dict[str, torch.Tensor]:
    return {path.name: load_file(path)["images"] for path in sorted(folder.rglob("*.images.safetensors"))}


def findings(folder: Path, inside: Inside, *options: str) -> dict[str, dict[str, Any]]:
    records = json.loads(inside(folder, "recheck", *options, "--format", "json").stdout)
    return {record["what"]: record for record in records}


def test_kept_images_are_the_judged_ones_and_change_nothing_else(
    tmp_path: Path, inside: Inside, digits: Dataset
) -> None:
    store = tmp_path / "results/store"
    matrix = (*MATRIX, "--engine", "reference")
    inside(tmp_path, "run", *matrix)
    before, folders = store_content(store), cell_folders(store)
    assert not kept(tmp_path)
    inside(tmp_path, "run", *matrix, "--keep-adversarial")
    assert store_content(store) == before and cell_folders(store) == folders
    images = kept(tmp_path)
    assert [len(found) for found in images.values()] == [250, 109]

    # The same attack by hand, on the second shard.
    from bench.settings.config import load_config
    from bench.settings.specs import parse_model
    from bench.training.checkpoint_files import load_weights
    from bench.training.job_identity import make_job
    from bench.training.loop import build_model

    job = make_job(parse_model("fc-linear"), digits, load_config(None), 0, 2)
    net = build_model(job, digits)
    load_weights(job.checkpoint(tmp_path / "results/checkpoints"), net)
    x, y, eps = digits.x_test[250:] / 255, digits.y_test[250:], parse_eps("8")
    radius, draws = torch.full((109,), float(eps)), Draws(0, digits.test_hash, range(250, 359))

    search = partial(pgd, steps=eq14_steps(eps))
    assert torch.equal(images["shard-00001.images.safetensors"], run_attack(search, net, x, y, radius, draws))

    # A lost file is made again to the same bits, a kept one is left alone.
    lost, other = sorted(store.rglob("*.images.safetensors"))
    stamp = other.stat().st_mtime_ns
    lost.unlink()
    inside(tmp_path, "run", *matrix, "--keep-adversarial")
    assert all(torch.equal(found, images[name]) for name, found in kept(tmp_path).items())
    assert other.stat().st_mtime_ns == stamp
    assert store_content(store) == before


def test_recheck_names_the_command_that_makes_its_images(tmp_path: Path, inside: Inside) -> None:
    options = ("--models", "deq[tol=1e-5]", "--eps", "8", "--epochs", "0", "--attacks", "pgd", "--examples", "20")
    said = last_line(inside(tmp_path, "recheck", *options, "--format", "json", "--strict", code=2))
    command = shlex.split(said.split("`")[1])
    assert command[:3] == ["python", "-m", "bench"] and "--strict" not in command and "json" not in command
    inside(tmp_path, *command[3:])
    found = findings(tmp_path, inside, *options, "--strict")
    assert list(found) == [
        "ball, range, ‖δ‖∞",
        "as run",
        "batch 1",
        "batch 64",
        "tol 1e-07",
        "solver broyden",
        "float64",
    ]
    assert all(record["n"] == 20 for record in found.values())
    assert found["as run"]["changed"] == 0 and found["ball, range, ‖δ‖∞"]["verdict"] == "OK"


def test_a_model_that_minds_its_batch_mates_is_found(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "moody.py").write_text(MOODY)
    options = (*MATRIX, "--models", "moody", "--plugin", "moody.py")
    inside(tmp_path, "run", *options, "--keep-adversarial")
    found = findings(tmp_path, inside, *options)
    assert {what: record["verdict"] for what, record in found.items()} == {
        "ball, range, ‖δ‖∞": "OK",
        "as run": "OK",
        "batch 1": "FAIL",
        "batch 64": "OK",
        "float64": "OK",
    }
    assert found["batch 1"]["changed"] > 30 and found["batch 1"]["low"] > 2
    said = last_line(inside(tmp_path, "recheck", *options, "--strict", code=2))
    assert "moody, PGD at 8/255: batch 1" in said
    inside(tmp_path, "recheck", *options)  # without --strict it is told, and no error


@pytest.mark.parametrize("excess", [1e-5, 2.0])
def test_an_image_outside_is_found_whatever_the_contract_said(
    excess: float, tmp_path: Path, inside: Inside, digits: Dataset
) -> None:
    inside(tmp_path, "run", *MATRIX, "--keep-adversarial")
    path = sorted(tmp_path.rglob("*.images.safetensors"))[0]
    images, clean = load_file(path)["images"], digits.x_test[7, 0, 3, 3] / 255
    images[7, 0, 3, 3] = clean + (8 / 255 + excess) * (1 if clean < 0.5 else -1)
    save_file({"images": images}, path)
    found = findings(tmp_path, inside, *MATRIX)["ball, range, ‖δ‖∞"]
    assert found["changed"] == 1 and found["verdict"] == "FAIL"


def test_damaged_or_foreign_images_are_one_line(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "run", *MATRIX, "--keep-adversarial")
    path = sorted(tmp_path.rglob("*.images.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-30])
    assert "are damaged" in last_line(inside(tmp_path, "recheck", *MATRIX, code=2))
    save_file({"images": torch.zeros(3, 1, 8, 8)}, path)
    assert "expected 250 float32 images" in last_line(inside(tmp_path, "recheck", *MATRIX, code=2))


def test_images_of_other_outcomes_are_not_kept(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "run", *MATRIX)
    path = sorted(tmp_path.rglob("*.parquet"))[0]
    table = pq.read_table(path)
    column = table["adversarial"].to_numpy().copy()
    column[0] = (column[0] + 1) % 10
    place = table.column_names.index("adversarial")
    changed = table.set_column(place, "adversarial", pa.array(column)).replace_schema_metadata(table.schema.metadata)
    pq.write_table(changed, path, write_page_checksum=True)
    said = last_line(inside(tmp_path, "run", *MATRIX, "--keep-adversarial", code=2))
    assert "holds other outcomes than this machine computes" in said
    assert not path.with_suffix("").with_suffix(".images.safetensors").exists()


def test_a_control_has_no_images_to_keep(tmp_path: Path, inside: Inside) -> None:
    control = (*MATRIX, "--protocol", "paper-normalized")
    for command in (("run", *control, "--keep-adversarial"), ("recheck", *control)):
        assert "attacks normalised tensors" in last_line(inside(tmp_path, *command, code=2))

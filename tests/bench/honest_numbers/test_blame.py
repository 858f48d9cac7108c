"""A model that cannot be attacked, or evaluated, fails its own row with one line that says why and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.helpers import bench

# Words of the row's line.
SAID = {
    "no-grad": "no gradient with respect to the images",
    "numpy": "no gradient with respect to the images",
    "detached": "no gradient with respect to the images",
    "tuple": "must return logits (20, 10), got tuple",
    "float64": "returns torch.float64 logits",
    "half": "returns torch.float16 logits",
    "nan-off-grid": "not finite for images off the 8-bit grid",
    "raises": "the model raised RuntimeError: mat1 and mat2",
    "lazy": "a lazy layer that has met no image; run a forward in its factory",
    "dynamically-quantised": "no plain tensor (a quantised layer?",
    "none": "its factory returned NoneType",
}
RAW = ("element 0 of tensors", "internal error", "Traceback", "object has no attribute")


@pytest.fixture(scope="session")
def lines(folder: Path) -> dict[str, Any]:
    """Every record of one run of all of them, with an honest model as the last, by model."""
    options = ("--plugin", "plugin.py", "--attacks", "ifgsm", "--store", "blame", "--format", "json")
    done = bench(folder, "run", "--models", ",".join([*SAID, "base"]), *options, code=2)
    assert not any(words in done.stdout + done.stderr for words in RAW)
    found: dict[str, Any] = {}
    for record in json.loads(done.stdout):
        found.setdefault(record["model"], []).append(record)
    return found


@pytest.mark.parametrize("model", SAID)
def test_the_row_says_whose_fault_it_is(lines: dict[str, Any], model: str) -> None:
    assert SAID[model] in lines[model][0]["failure"]
    assert all(record["accuracy"] is None for record in lines[model])


def test_the_other_rows_are_computed(lines: dict[str, Any]) -> None:
    assert [record["accuracy"] is not None for record in lines["base"]] == [True, True]


def test_a_factory_that_sets_the_default_type_sets_it_for_no_other_row(folder: Path) -> None:
    options = ("--plugin", "plugin.py", "--attacks", "pgd", "--store", "dtype", "--format", "json", "--strict")
    records = json.loads(bench(folder, "run", "--models", "default-dtype,base", *options).stdout)
    found = {record["model"]: record["accuracy"] for record in records if record["eps"] == "32/255"}
    assert found["default-dtype"] == found["base"]


def test_what_needs_no_gradient_is_named_and_works(folder: Path, lines: dict[str, Any]) -> None:
    assert "--attacks 'autoattack[attacks=square]'" in lines["no-grad"][0]["failure"]
    attack = "autoattack[attacks=square,queries=50]"
    options = ("--plugin", "plugin.py", "--attacks", attack, "--store", "blame", "--format", "json")
    done = bench(folder, "run", "--models", "base,no-grad,numpy,quantised", *options)
    found = {record["model"]: record for record in json.loads(done.stdout) if record["eps"] == "32/255"}
    assert found["no-grad"]["accuracy"] == found["numpy"]["accuracy"] == found["base"]["accuracy"] < 96
    # A gradient of 0 concerns attacks that take one.
    assert all(record["unreliable"] is None for record in found.values())


@pytest.mark.parametrize("model", ["quantised", "saturated"])
def test_images_that_no_gradient_moves_are_counted(folder: Path, model: str) -> None:
    options = ("--plugin", "plugin.py", "--models", model, "--store", "blame")
    done = bench(folder, "run", *options, "--attacks", "ifgsm,apgd[loss=margin,steps=5]", "--strict", code=2)
    assert "‡ unreliable" in done.stdout and "--strict: " in done.stderr
    assert f"{model} on few, I-FGSM: the image stands, and every gradient there was 0" in done.stdout
    # The margin of saturated logits has a gradient, that of quantised images has none.
    assert (f"{model} on few, APGD[loss=margin,steps=5]: the image stands" in done.stdout) == (model == "quantised")


def test_an_honest_model_passes_strictly(folder: Path) -> None:
    options = ("--plugin", "plugin.py", "--models", "base", "--store", "blame", "--attacks", "ifgsm")
    done = bench(folder, "run", *options, "--strict")
    assert "‡" not in done.stdout


def test_a_dry_run_of_a_broken_model_fails_its_row_alone(folder: Path) -> None:
    options = ("--plugin", "plugin.py", "--models", "raises,lazy,in-place-normalise", "--store", "dry")
    done = bench(folder, "run", *options, "--attacks", "ifgsm", "--dry-run", code=2)
    assert "the model raised RuntimeError: mat1" in done.stderr and "internal error" not in done.stderr
    assert "in-place-normalise" in done.stdout and "in-place-normalise:" not in done.stderr

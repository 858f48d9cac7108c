"""`bench check` says of a stranger's model what a run says, and names whose fault it is."""

import shutil
from pathlib import Path

import pytest

from tests.bench.helpers import Done, Inside

FOUND = {
    "in-place-round": "its forward writes into the images it is given",
    "nan": "the gradient is not finite on",
    "noise": "the same images get other logits each time",
    "seeded-noise": "logits jump when an image moves by 1e-06",
    "softmax": "the model returns probabilities, not logits",
    "quantised": "the cross-entropy's gradient is 0 on 10 of 10 images tried, and the logits' margin has none either",
    "saturated": "while the logits' margin has one",
    "no-grad": "the model's logits have no gradient with respect to the images",
    "nan-off-grid": "the model returns logits that are not finite for images off the 8-bit grid",
}


def check(inside: Inside, folder: Path, model: str, code: int = 0) -> Done:
    """With a copy of the plugin: a file is loaded once in a process, into the registries of the first test."""
    plugin = shutil.copy(folder / "plugin.py", folder / f"check_{model}.py")
    return inside(folder, "check", model, "--plugin", str(plugin), code=code)


@pytest.mark.parametrize("model", FOUND)
def test_what_a_run_finds_is_a_point_of_the_contract(folder: Path, inside: Inside, model: str) -> None:
    done = check(inside, folder, model, code=2)
    assert FOUND[model] in done.stdout
    assert "element 0 of tensors" not in done.stdout + done.stderr


@pytest.mark.parametrize("model", ["base", "parallel", "weight-norm", "squeezed", "channels-last", "checkpointed"])
def test_a_wrapper_that_changes_nothing_passes(folder: Path, inside: Inside, model: str) -> None:
    done = check(inside, folder, model)
    assert "FAIL" not in done.stdout


def test_a_model_that_writes_into_its_input_has_its_other_points_right(folder: Path, inside: Inside) -> None:
    done = check(inside, folder, "in-place-normalise", code=2)
    assert done.stdout.count("FAIL") == 1

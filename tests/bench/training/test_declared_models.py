"""A model declared in bench.toml: what its declaration must hold, and how it runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.execution.plan import plan_matrix
from bench.execution.run import run_matrix
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.job_identity import make_job
from tests.bench.training.foreign import FORMS, MEAN, STD, declare, load_declared


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": None}, "go together"),
        ({"checkpoint": None}, "go together"),
        ({"std": [0.5, 0.5, 0.5]}, "need 1 value"),
        ({"std": [0.0]}, "above 0"),
        ({"checkpoint": Path("nowhere.pth")}, "there is no file nowhere.pth"),
        ({"checkpoint": Path("weights.bin")}, "none of .pth"),
    ],
)
def test_a_declaration_that_does_not_fit_says_so(
    fields: dict[str, Any], message: str, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    path.touch()
    with pytest.raises(BenchError, match=message):
        load_declared(declare(config, **{"checkpoint": path, **fields}), digits)


def test_it_runs_without_training_and_its_weights_and_normalisation_key_its_cells(
    theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    FORMS["parallel.th"](theirs.state_dict(), tmp_path / "a.th")
    FORMS["bare.safetensors"](theirs.state_dict(), tmp_path / "b.safetensors")
    run = config.run.model_copy(
        update={"models": ["my-net"], "eps": ["8"], "attacks": ["ifgsm"], "workers": 1, "device": "cpu"}
    )
    paths = config.paths.model_copy(update={"store": tmp_path / "store", "checkpoints": tmp_path / "ck"})
    own = config.model_copy(update={"run": run, "paths": paths})

    def key(path: Path, **fields: Any) -> tuple[str, Any]:
        declared = declare(own, path, **fields)
        matrix = plan_matrix(declared, None, [])
        matrix, store = run_matrix(matrix, declared, {}, no_train=True, debug=True)
        (cell,) = matrix.rows[0].cells
        assert not matrix.rows[0].failure
        return cell.key(), store.outcomes(cell, 0)

    first, outcomes = key(tmp_path / "a.th")
    with torch.no_grad():
        expected = theirs((as_pixels(digits.x_test) - MEAN[0]) / STD[0]).argmax(1)
    assert float((expected == digits.y_test).float().mean()) > 0.5
    assert (outcomes["clean"] == expected.numpy()).all()
    assert key(tmp_path / "b.safetensors")[0] == first  # the same weights in another file
    assert key(tmp_path / "a.th", std=[0.6])[0] != first
    assert not (tmp_path / "ck").exists()


def test_it_takes_no_recipe(theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    with pytest.raises(BenchError, match="takes no recipe 'trades'"):
        make_job(parse_model("my-net+trades"), digits, declare(config, tmp_path / "x.pth"), 0)


def test_a_damaged_one_fails_its_own_row_alone(
    theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:5000])
    run = config.run.model_copy(update={"models": ["my-net"], "eps": ["8"], "device": "cpu"})
    paths = config.paths.model_copy(update={"store": tmp_path / "store", "checkpoints": tmp_path / "ck"})
    declared = declare(config.model_copy(update={"run": run, "paths": paths}), tmp_path / "x.pth")
    matrix = plan_matrix(declared, None, [])
    matrix, _ = run_matrix(matrix, declared, {}, no_train=False, debug=False)
    assert "truncated or damaged" in matrix.rows[0].failure

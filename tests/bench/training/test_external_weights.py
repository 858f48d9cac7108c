"""Checkpoints trained elsewhere: every form that is accepted gives the other project's own logits."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.execution.plan import plan_matrix
from bench.execution.run import run_matrix
from bench.registry import model
from bench.settings.config import Config, UserModel
from bench.settings.specs import parse_model
from bench.training.checkpoint import save_weights
from bench.training.external_weights import read_state
from bench.training.job import make_job
from bench.training.loop import build_model

MEAN, STD = [0.2], [0.7]  # not those of digits


class TheirBlock(nn.Module):
    """A residual block as other projects write and name it."""

    def __init__(self, inside: int, outside: int, stride: int, convolution: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = None
        if convolution and stride == 2:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside)
            )
        self.stride, self.outside = stride, outside

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.outside // 4, self.outside // 4))
        return functional.relu(out + x)


class TheirResNet20(nn.Module):
    def __init__(self, convolution: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            blocks = [
                TheirBlock(widths[stage - (i == 0)], widths[stage], 2 if stage > 1 and i == 0 else 1, convolution)
                for i in range(3)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def theirs(digits: Dataset) -> TheirResNet20:
    """Trained a little, behind its own normalisation, so that its accuracy means something."""
    torch.manual_seed(0)
    net = TheirResNet20()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    x, y = (as_pixels(digits.x_train) - MEAN[0]) / STD[0], digits.y_train
    for rows in torch.randperm(len(x)).split(100)[:10] * 2:
        optimizer.zero_grad()
        functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


def declare(config: Config, checkpoint: Path | None, **fields: Any) -> Config:
    user = UserModel(arch="resnet20", checkpoint=checkpoint, **{"mean": MEAN, "std": STD, **fields})
    return config.model_copy(update={"models": {"my-net": user}})


def load(config: Config, digits: Dataset) -> nn.Module:
    return build_model(make_job(parse_model("my-net"), digits, config, seed=0), digits).eval()


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value.contiguous() for key, value in state.items()}


FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "bare.pth": torch.save,
    "nested.th": lambda state, path: torch.save(
        {"epoch": 3, "state_dict": state, "best_prec1": 91.25}, path, _use_new_zipfile_serialization=False
    ),
    "parallel.th": lambda state, path: torch.save({"state_dict": prefixed(state, "module.")}, path),
    "model.pt": lambda state, path: torch.save({"model": state, "optimizer": {"lr": 0.1}}, path),
    "net.pt": lambda state, path: torch.save({"net": prefixed(state, "module."), "acc": 91.2, "epoch": 1}, path),
    "compiled.pt": lambda state, path: torch.save(prefixed(state, "_orig_mod.module."), path),
    "twice.pt": lambda state, path: torch.save({"model": {"state_dict": state}}, path),
    "bare.safetensors": save_file,
    "parallel.safetensors": lambda state, path: save_file(prefixed(state, "module."), path),
    "old.pth": lambda state, path: torch.save(
        {key: value for key, value in state.items() if "num_batches" not in key}, path
    ),
    "fc.pth": lambda state, path: torch.save({k.replace("linear.", "fc."): v for k, v in state.items()}, path),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_other_projects_logits(
    form: str, theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    FORMS[form](theirs.state_dict(), tmp_path / form)
    net, x = load(declare(config, tmp_path / form), digits), as_pixels(digits.x_test[:50])
    with torch.no_grad():
        expected = theirs((x - MEAN[0]) / STD[0])
        assert torch.allclose(net(x), expected, atol=1e-4)
        assert not torch.allclose(net(x), theirs(x), atol=1e-2)


def test_convolutional_shortcuts_load_where_the_architecture_has_them(
    digits: Dataset, config: Config, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other, path, x = TheirResNet20(convolution=True), tmp_path / "b.pth", as_pixels(digits.x_test[:20])
    for _ in range(10):
        other(x)
    torch.save(other.eval().state_dict(), path)
    net = load(declare(config, path, options={"shortcut": "conv"}), digits)
    assert torch.allclose(net(x), other((x - MEAN[0]) / STD[0]), atol=1e-4)
    with pytest.raises(BenchError, match=r"0 keys missing, 12 unexpected \(first: layer2.0.downsample.0.weight\)"):
        load(declare(config, path), digits)


def test_our_own_checkpoint_is_one_too(digits: Dataset, config: Config, tmp_path: Path) -> None:
    ours = build_model(make_job(parse_model("resnet20"), digits, config, seed=3), digits).eval()
    save_weights(tmp_path / "ours.safetensors", ours)
    net, x = load(declare(config, tmp_path / "ours.safetensors"), digits), as_pixels(digits.x_test[:5])
    # What bench.toml says of the normalisation wins over what the file holds.
    assert torch.allclose(net(x), ours.body((x - MEAN[0]) / STD[0]), atol=1e-4, rtol=1e-4)


def their_wide_keys() -> list[str]:
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    keys = ["conv1.weight", *(f"bn1.{k}" for k in bn), "fc.weight", "fc.bias"]
    for stage in (1, 2, 3):
        for block in range(4):
            head = f"block{stage}.layer.{block}."
            keys += [f"{head}conv{i}.weight" for i in (1, 2)] + [f"{head}bn{i}.{k}" for i in (1, 2) for k in bn]
        keys.append(f"block{stage}.layer.0.convShortcut.weight")
    return keys


def their_vgg_keys() -> list[str]:
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    convolutions = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    keys = [f"features.{i}.{k}" for i in convolutions for k in ("weight", "bias")]
    keys += [f"features.{i + 1}.{k}" for i in convolutions for k in bn]
    return [*keys, "classifier.weight", "classifier.bias"]


@pytest.mark.parametrize(("name", "keys"), [("wrn-28-10", their_wide_keys()), ("vgg16", their_vgg_keys())])
def test_common_names_of_the_other_baselines_are_known(name: str, keys: list[str], digits: Dataset) -> None:
    with torch.device("meta"):
        wanted = model[name].target(digits.images).state_dict()
    rename = model[name].traits.rename
    assert rename is not None
    renamed = [rename(key) for key in keys]
    assert sorted(renamed) == sorted(key for key in wanted if not key.startswith("normalize."))


def test_a_block_too_many_does_not_land_on_another_ones_place() -> None:
    rename = model["resnet20"].traits.rename
    assert rename is not None
    assert rename("layer1.2.conv1.weight") == "body.0.blocks.2.conv1.weight"
    assert rename("layer1.3.conv1.weight") == "layer1.3.conv1.weight"
    assert rename("layer4.0.conv1.weight") == "layer4.0.conv1.weight"


def test_a_mismatch_names_the_first_keys_and_shapes(
    theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    path, state = tmp_path / "x.pth", theirs.state_dict()
    torch.save({k.replace("bn2", "norm2"): v for k, v in state.items() if k != "conv1.weight"}, path)
    with pytest.raises(
        BenchError, match=r"missing \(first: body.0.blocks.0.bn2.bias\), .*\(first: layer1.0.norm2.bias\)"
    ):
        load(declare(config, path), digits)
    torch.save({**state, "linear.weight": torch.zeros(100, 64)}, path)
    with pytest.raises(BenchError, match=r"body.1.weight is \(100, 64\), expected \(10, 64\)"):
        load(declare(config, path), digits)


@pytest.mark.parametrize("form", ["bare.pth", "nested.th", "model.pt", "bare.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_refused(form: str, share: float, theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / form
    FORMS[form](theirs.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BenchError, match=f"{form} is (truncated or damaged|refused)") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


class Bomb:
    """What a malicious checkpoint holds."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["zip.pth", "legacy.th", "pickle.pt"])
def test_a_pickle_that_would_run_code_is_refused(form: str, protocol: int, theirs: nn.Module, tmp_path: Path) -> None:
    path, mark = tmp_path / form, tmp_path / "mark"
    content = {"state_dict": theirs.state_dict(), "extra": Bomb(mark)}
    if form == "pickle.pt":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip.pth")
    with pytest.raises(BenchError, match=r"refused: .* could run code. Save its state_dict alone") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused_too(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(BenchError, match=r"asks for torch.nn.modules.linear.Linear"):
        read_state(tmp_path / "module.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(BenchError, match="holds no state_dict"):
        read_state(tmp_path / "empty.pt")


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
        load(declare(config, **{"checkpoint": path, **fields}), digits)


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

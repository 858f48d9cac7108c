"""Checkpoints trained elsewhere: every form that is accepted gives the other project's own logits."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.registry import model
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import save_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model
from tests.bench.training.foreign import FORMS, MEAN, STD, TheirResNet20, declare, load_declared
from tests.parts import submodule


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_other_projects_logits(
    form: str, theirs: nn.Module, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    FORMS[form](theirs.state_dict(), tmp_path / form)
    net, x = load_declared(declare(config, tmp_path / form), digits), as_pixels(digits.x_test[:50])
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
    net = load_declared(declare(config, path, options={"shortcut": "conv"}), digits)
    assert torch.allclose(net(x), other((x - MEAN[0]) / STD[0]), atol=1e-4)
    with pytest.raises(BenchError, match=r"0 keys missing, 12 unexpected \(first: layer2.0.downsample.0.weight\)"):
        load_declared(declare(config, path), digits)


def test_our_own_checkpoint_is_one_too(digits: Dataset, config: Config, tmp_path: Path) -> None:
    ours = build_model(make_job(parse_model("resnet20"), digits, config, seed=3), digits).eval()
    body = submodule(ours, "body", nn.Module)
    save_weights(tmp_path / "ours.safetensors", ours)
    net, x = load_declared(declare(config, tmp_path / "ours.safetensors"), digits), as_pixels(digits.x_test[:5])
    # What bench.toml says of the normalisation wins over what the file holds.
    assert torch.allclose(net(x), body((x - MEAN[0]) / STD[0]), atol=1e-4, rtol=1e-4)


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
        load_declared(declare(config, path), digits)
    torch.save({**state, "linear.weight": torch.zeros(100, 64)}, path)
    with pytest.raises(BenchError, match=r"body.1.weight is \(100, 64\), expected \(10, 64\)"):
        load_declared(declare(config, path), digits)

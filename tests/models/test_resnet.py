"""CIFAR ResNets: published sizes, the model contract at every image size, and shortcuts without parameters."""

from pathlib import Path

import pytest
import torch

from bench.models.images import Images
from bench.models.resnet import BasicBlock
from bench.settings.config import Config
from tests.models import cnn
from tests.models.cnn import DIGITS, SIZES, make
from tests.parts import submodule


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet20", {}, 269_722),
        ("resnet56", {}, 853_018),
        ("resnet56", {"shortcut": "conv"}, 855_770),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, options: dict[str, str], parameters: int) -> None:
    assert cnn.count_parameters(name, 10, **options) == parameters


@pytest.mark.parametrize("images", SIZES.values(), ids=SIZES)
def test_it_takes_every_image_size(images: Images) -> None:
    cnn.assert_takes("resnet56", images)


def test_the_contract_of_a_model_holds() -> None:
    cnn.assert_contract_holds(make("resnet56", DIGITS), DIGITS)


def test_convolutions_run_channels_last() -> None:
    cnn.assert_convolutions_run_channels_last("resnet56")


def test_pad_shortcuts_hold_no_parameters_and_pass_the_image_on() -> None:
    block = submodule(make("resnet20"), "body.0.blocks.3", BasicBlock)
    x = torch.rand(2, 16, 8, 8)
    y = block.shortcut(x)
    assert not list(block.shortcut.parameters())
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert float(y[:, :8].abs().max()) == float(y[:, 24:].abs().max()) == 0


@pytest.mark.slow
def test_one_step_of_training_and_of_pgd(real_data: Path, config: Config, tmp_path: Path) -> None:
    cnn.assert_one_step_of_training_and_of_pgd("resnet56", tmp_path, real_data, config)

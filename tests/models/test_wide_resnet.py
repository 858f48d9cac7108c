"""Wide ResNets: published sizes and depth, and the model contract at every image size."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.models.images import Images
from bench.models.wide_resnet import WideResNetFeatures, wide_resnet
from bench.settings.config import Config
from tests.models import cnn
from tests.models.cnn import MNIST, SIZES


@pytest.mark.parametrize(("classes", "parameters"), [(10, 36_479_194), (100, 36_536_884)])
def test_parameter_counts_are_the_published_ones(classes: int, parameters: int) -> None:
    assert cnn.count_parameters("wrn-28-10", classes) == parameters


@pytest.mark.parametrize("images", SIZES.values(), ids=SIZES)
def test_it_takes_every_image_size(images: Images) -> None:
    cnn.assert_takes("wrn-28-10", images)


def test_the_contract_of_a_model_holds() -> None:
    torch.manual_seed(1)
    cnn.assert_contract_holds(wide_resnet(MNIST, depth=10, width=2).eval(), MNIST)


def test_convolutions_run_channels_last() -> None:
    cnn.assert_convolutions_run_channels_last("wrn-28-10")


def test_it_has_the_depth_of_its_name() -> None:
    with torch.device("meta"):
        features = WideResNetFeatures(3, depth=28, width=10)
    convolutions = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 3 == 28  # the name counts the three shortcuts, and not the classifier
    assert convolutions[-1].out_channels == 640
    with pytest.raises(ValueError, match="6n"):
        WideResNetFeatures(3, depth=27, width=1)


@pytest.mark.slow
def test_one_step_of_training_and_of_pgd(real_data: Path, config: Config, tmp_path: Path) -> None:
    cnn.assert_one_step_of_training_and_of_pgd("wrn-28-10", tmp_path, real_data, config)

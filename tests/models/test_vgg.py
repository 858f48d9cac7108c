"""VGG-16: its published size, and the model contract at every image size."""

from pathlib import Path

import pytest

from bench.models.images import Images
from bench.settings.config import Config
from tests.models import cnn
from tests.models.cnn import DIGITS, SIZES, make


def test_the_parameter_count_is_the_published_one() -> None:
    assert cnn.count_parameters("vgg16", 10) == 14_728_266


@pytest.mark.parametrize("images", SIZES.values(), ids=SIZES)
def test_it_takes_every_image_size(images: Images) -> None:
    cnn.assert_takes("vgg16", images)


def test_the_contract_of_a_model_holds() -> None:
    cnn.assert_contract_holds(make("vgg16", DIGITS), DIGITS)


def test_convolutions_run_channels_last() -> None:
    cnn.assert_convolutions_run_channels_last("vgg16")


@pytest.mark.slow
def test_one_step_of_training_and_of_pgd(real_data: Path, config: Config, tmp_path: Path) -> None:
    cnn.assert_one_step_of_training_and_of_pgd("vgg16", tmp_path, real_data, config)

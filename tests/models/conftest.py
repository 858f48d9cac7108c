"""A small interval-trained model on the embedded digits, made once per session."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.config import load_config
from bench.data.load import Dataset, as_pixels, load
from bench.names import parse_model
from bench.training.checkpoint import load_weights
from bench.training.job import make_job
from bench.training.loop import build_model, train


@pytest.fixture(scope="session")
def digit_set() -> Dataset:
    return load("digits", Path("unused"))


@pytest.fixture(scope="session")
def digit_images(digit_set: Dataset) -> tuple[Tensor, Tensor]:
    return as_pixels(digit_set.x_test), digit_set.y_test


@pytest.fixture(scope="session")
def trained_digits(digit_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """ibp-mondeq for ε = 0.1, 30 epochs, in eval mode."""
    config = load_config(Path(__file__).resolve().parents[2] / "bench.toml")
    spec = parse_model("ibp-mondeq[eps=0.1,width=64]+ibp[lr=5e-3]")
    job = make_job(spec, digit_set, config, seed=0, epochs=30)
    path = train(job, digit_set, tmp_path_factory.mktemp("mondeq"), torch.device("cpu"), config.train)
    net = build_model(job, digit_set)
    load_weights(path, net)
    return net.eval()

"""A layer whose fixed point is known, and a small interval-trained model on the embedded digits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.data.load import Dataset, as_pixels, load
from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.mondeq import MonDEQ
from bench.settings.config import load_config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model, train
from tests.parts import statistics


@pytest.fixture(scope="session")
def cell() -> ImplicitCell:
    """A contraction that is not trivial: spectral radius of the Jacobian about a half."""
    torch.manual_seed(0)
    net = ImplicitCell(16).double()
    for linear in (net.inner, net.outer):
        torch.nn.init.normal_(linear.weight, std=0.18)
        torch.nn.init.normal_(linear.bias, std=0.1)
    for bn in (net.inner_bn, net.outer_bn):
        mean, variance = statistics(bn)
        mean.uniform_(0, 0.5)
        variance.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def h() -> Tensor:
    return torch.randn(40, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def truth(cell: ImplicitCell, h: Tensor) -> Tensor:
    z = torch.zeros_like(h)
    for _ in range(5000):
        z = cell(z, h)
    assert float((cell(z, h) - z).abs().max()) < 1e-14
    return z


@pytest.fixture(scope="session")
def digit_set() -> Dataset:
    return load("digits", Path("unused"))


@pytest.fixture(scope="session")
def digit_images(digit_set: Dataset) -> tuple[Tensor, Tensor]:
    return as_pixels(digit_set.x_test), digit_set.y_test


@pytest.fixture(scope="session")
def trained_digits(digit_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MonDEQ:
    """ibp-mondeq for ε = 0.1, 30 epochs, in eval mode."""
    config = load_config(Path(__file__).resolve().parents[2] / "bench.toml")
    spec = parse_model("ibp-mondeq[eps=0.1,width=64]+ibp[lr=5e-3]")
    job = make_job(spec, digit_set, config, seed=0, epochs=30)
    path = train(job, digit_set, tmp_path_factory.mktemp("mondeq"), torch.device("cpu"), config.train)
    net = build_model(job, digit_set)
    assert isinstance(net, MonDEQ)
    load_weights(path, net)
    return net.eval()

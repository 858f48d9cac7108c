"""Shared pieces: the embedded data, and small models trained on it once per session."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.data.load import Dataset, as_pixels, load
from bench.models.images import Classifier
from bench.settings.config import Config, load_config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import Job, make_job
from bench.training.loop import build_model, train
from tests.bench.helpers import Inside

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 15

Trained = Callable[[str], Classifier]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small products are faster on one thread, and bits do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


@pytest.fixture(scope="session")
def config() -> Config:
    """bench.toml, but training on one thread: several wait for each other wherever another job runs."""
    base = load_config(ROOT / "bench.toml")
    return base.model_copy(update={"train": base.train.model_copy(update={"threads": 1})})


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", Path("unused"))


@pytest.fixture(scope="session")
def images(digits: Dataset) -> tuple[Tensor, Tensor]:
    """Digits' test images in [0, 1] and labels."""
    return as_pixels(digits.x_test), digits.y_test


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def trained(digits: Dataset, config: Config, checkpoints: Path) -> Trained:
    """A model by name, trained on digits for 15 epochs, in eval mode and without parameter gradients."""

    def get(name: str) -> Classifier:
        job = make_job(parse_model(name), digits, config, seed=0, epochs=EPOCHS)
        path = train(job, digits, checkpoints, torch.device("cpu"), config.train)
        net = build_model(job, digits)
        assert isinstance(net, Classifier)
        load_weights(path, net)
        return net.eval().requires_grad_(False)

    return get


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with the real MNIST and CIFAR-10, from BENCH_DATA or unpacked from ../shared/data."""
    if "BENCH_DATA" in os.environ:
        return Path(os.environ["BENCH_DATA"])
    unpack = ROOT.parent / "shared" / "data" / "unpack.py"
    if not unpack.exists():
        pytest.skip("no real data: set BENCH_DATA to a folder with mnist.npz and cifar10.npz")
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("data")
    for name in ("mnist", "cifar10"):
        subprocess.run([sys.executable, str(unpack), name, str(folder)], check=True, capture_output=True)
    return folder


def job_for(name: str, data: Dataset, config: Config, epochs: int = EPOCHS, seed: int = 0) -> Job:
    """A job as the harness makes it."""
    return make_job(parse_model(name), data, config, seed=seed, epochs=epochs)

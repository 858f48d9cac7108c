"""Training that was killed goes on to bit-equal weights, whatever the recipe."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.data.load import Dataset, load
from bench.settings.config import Config, Train, load_config
from bench.settings.specs import parse_model
from bench.system.files import read_json
from bench.training import loop
from bench.training.checkpoint_files import card_path, load_weights, state_path
from bench.training.job_identity import Job, make_job
from bench.training.loop import build_model, train
from tests.bench.helpers import ROOT

CPU = torch.device("cpu")
RECIPES = [
    "standard",
    "standard[autocast=true]",
    "trades[eps=0.1,step=0.05,steps=3]",
    "pgd-at[eps=0.1,step=0.05,steps=3]",
    "robust-dataset[source=fc-linear+pgd-at,steps=5]",
]


def small_digits() -> Dataset:
    whole = load("digits", Path("unused"))
    # Augmentation on, so that its random numbers too have to be resumed.
    return replace(whole, x_train=whole.x_train[:160], y_train=whole.y_train[:160], augment=True)


def one_thread(config: Config, **settings: float) -> Train:
    return config.train.model_copy(update={"threads": 1, **settings})


def small_job(name: str, data: Dataset, config: Config) -> Job:
    """Three epochs of five steps."""
    small = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 32})})
    return make_job(parse_model(name), data, small, seed=0, epochs=3)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Steps after which training is interrupted; empty: never again."""
    stops: list[int] = []
    one_step = loop._Run._one_step

    def step(run: loop._Run, epoch: int, index: int, rows: Tensor) -> None:
        if stops and run.job.label.startswith(("deq", "resnet20", "ibp-mondeq")) and run.step == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        one_step(run, epoch, index, rows)

    monkeypatch.setattr(loop._Run, "_one_step", step)
    yield stops


NAMES = [f"{architecture}+{recipe}" for recipe in RECIPES for architecture in ("deq", "resnet20")]
# Its own recipe, m annealed in a buffer along the way.
NAMES.append("ibp-mondeq[eps=0.1,width=16]+ibp[batch_size=32,m_start=0.99]")


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_twice_and_resumed_it_ends_in_the_same_bits(
    name: str, config: Config, tmp_path: Path, interrupted: list[int]
) -> None:
    data = small_digits()
    job = small_job(name, data, config)
    every_step = one_thread(config, save_seconds=0.0)
    straight = train(job, data, tmp_path / "straight", CPU, one_thread(config))
    interrupted[:] = [4, 11]  # within the first epoch, and in the last one
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(job, data, tmp_path / "killed", CPU, every_step)
    assert not job.checkpoint(tmp_path / "killed").exists()
    resumed = train(job, data, tmp_path / "killed", CPU, every_step)
    assert not interrupted
    one, two = (read_json(card_path(path)) for path in (straight, resumed))
    assert one["weights"] == two["weights"] == load_weights(resumed, build_model(job, data))
    assert one["weights"] != read_json(card_path(_other_seed(job, data, tmp_path, config)))["weights"]
    logs = [[line.rsplit(",", 1)[0] for line in path.with_suffix(".csv").open()] for path in (straight, resumed)]
    assert logs[0] == logs[1]  # all but the seconds


def _other_seed(job: Job, data: Dataset, folder: Path, config: Config) -> Path:
    """Weights do depend on what is drawn: else equal bits would prove nothing."""
    sources = {name: replace(source, seed=0) for name, source in job.sources.items()}
    return train(replace(job, seed=1, sources=sources), data, folder / "straight", CPU, one_thread(config))


def test_a_process_killed_by_the_system_is_resumed(config: Config, tmp_path: Path) -> None:
    name, data = f"deq+{RECIPES[2]}", small_digits()
    job = small_job(name, data, config)
    path = job.checkpoint(tmp_path / "killed")
    command = [
        sys.executable,
        "-c",
        f"import {__name__} as t; t.train_for_ever({str(tmp_path / 'killed')!r}, {name!r})",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not state_path(path).exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, child.stderr and child.stderr.read()
    assert not path.exists()
    step = torch.load(state_path(path), weights_only=True)["step"]
    assert 0 < step < 15
    resumed = train(job, data, tmp_path / "killed", CPU, one_thread(config))
    straight = train(job, data, tmp_path / "straight", CPU, one_thread(config))
    assert read_json(card_path(resumed))["weights"] == read_json(card_path(straight))["weights"]


def train_for_ever(folder: str, name: str) -> None:
    """In the child: saves after every step and takes its time, so that the kill falls into training."""
    torch.set_num_threads(1)
    config, data = load_config(ROOT / "bench.toml"), small_digits()
    one_step = loop._Run._one_step

    def slow_step(run: loop._Run, epoch: int, index: int, rows: Tensor) -> None:
        one_step(run, epoch, index, rows)
        time.sleep(0.2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_one_step", slow_step)
        train(small_job(name, data, config), data, Path(folder), CPU, one_thread(config, save_seconds=0.0))

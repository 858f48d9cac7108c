"""Training: exact resumption, one run for two who ask, checkpoints that are what their cards say."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.data.load import Dataset
from bench.errors import BenchError
from bench.settings.config import Config
from bench.training.augment import crop_and_flip
from bench.training.checkpoint_files import card_path, load_weights
from bench.training.loop import build_model, train
from tests.bench.helpers import bench, command, environment
from tests.conftest import job_for

CPU = torch.device("cpu")


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL during the third epoch and again later; the weights are those of an undisturbed run."""
    frequent = tmp_path / "bench.toml"
    frequent.write_text("[train]\nsave_seconds = 0\n")
    options = ("train", "--models", "lyadeq", "--epochs", "12", "--config", str(frequent))
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    bench(calm, *options)
    for wanted in (12, 60):
        process = subprocess.Popen(command(*options), cwd=rough, env=environment(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while _steps(rough) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list(rough.rglob("*.safetensors"))
    assert 60 <= _steps(rough) < 120
    bench(rough, *options)
    weights = [next(folder.rglob("*.safetensors")) for folder in (calm, rough)]
    assert weights[0].name == weights[1].name and weights[0].read_bytes() == weights[1].read_bytes()
    logs = [path.with_suffix(".csv").read_text().splitlines() for path in weights]
    assert [line.rsplit(",", 1)[0] for line in logs[0]] == [line.rsplit(",", 1)[0] for line in logs[1]]
    assert len(logs[0]) == 13 and not list(rough.rglob("*.state.pt"))


def _steps(folder: Path) -> int:
    for path in folder.rglob("*.state.pt"):
        try:
            return int(torch.load(path, weights_only=True)["step"])
        except (OSError, RuntimeError, EOFError):
            return 0
    return 0


def test_two_who_ask_train_once(tmp_path: Path) -> None:
    options = ("train", "--models", "fc-linear", "--epochs", "20")
    both = [subprocess.Popen(command(*options), cwd=tmp_path, env=environment()) for _ in range(2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_seeds_and_options_make_weights_of_their_own(digits: Dataset, config: Config, tmp_path: Path) -> None:
    names = [
        job_for("lyadeq", digits, config).checkpoint(tmp_path),
        job_for("lyadeq", digits, config, seed=1).checkpoint(tmp_path),
        job_for("lyadeq", digits, config, epochs=2).checkpoint(tmp_path),
        job_for("lyadeq[alpha=0.5]", digits, config).checkpoint(tmp_path),
        job_for("lyadeq+standard[lr=0.01]", digits, config).checkpoint(tmp_path),
    ]
    assert len(set(names)) == len(names)
    # What only evaluation uses does not train anew.
    assert job_for("lyadeq[tol=1e-4,gradient=implicit]", digits, config).checkpoint(tmp_path) == names[0]


def test_card_and_log_describe_the_training(digits: Dataset, config: Config, tmp_path: Path) -> None:
    job = job_for("fc-linear", digits, config, epochs=10)
    path = train(job, digits, tmp_path, CPU, config.train)
    card = json.loads(card_path(path).read_text())
    assert card["settings"]["epochs"] == 10 and card["seed"] == 0 and card["recipe"] == "standard"
    assert card["train_data"] == digits.train_hash and card["environment"]["packages"]["torch"]
    assert (
        card["clean_accuracy"] > 0.7 and card["clean_interval"][0] < card["clean_accuracy"] < card["clean_interval"][1]
    )
    log = path.with_suffix(".csv").read_text().splitlines()
    losses = [float(line.split(",")[1]) for line in log[1:]]
    assert len(losses) == 10 and losses[-1] < 0.7 * losses[0]
    net = build_model(job, digits)
    assert load_weights(path, net) == card["weights"]


@pytest.fixture
def checkpoint(digits: Dataset, config: Config, checkpoints: Path, tmp_path: Path) -> tuple[Path, nn.Module]:
    """A copy of a checkpoint and its card, to be damaged, and a model that fits it."""
    job = job_for("fc-linear", digits, config)
    source = train(job, digits, checkpoints, CPU, config.train)
    for path in (source, card_path(source)):
        shutil.copy(path, tmp_path)
    return tmp_path / source.name, build_model(job, digits)


def test_truncated_checkpoint_is_refused(checkpoint: tuple[Path, nn.Module]) -> None:
    path, net = checkpoint
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match="is damaged"):
        load_weights(path, net)


def test_other_weights_than_the_cards_are_refused(checkpoint: tuple[Path, nn.Module]) -> None:
    path, net = checkpoint
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BenchError, match="does not hold the weights its card names"):
        load_weights(path, net)


def test_weights_of_another_architecture_are_refused(
    checkpoint: tuple[Path, nn.Module], digits: Dataset, config: Config
) -> None:
    path, _ = checkpoint
    with pytest.raises(BenchError, match=r"\d+ keys missing \(first: body\.\S+\), \d+ unexpected"):
        load_weights(path, build_model(job_for("resnet20", digits, config), digits))
    with pytest.raises(BenchError, match="keys missing"):
        load_weights(path, build_model(job_for("deq[state=32]", digits, config), digits))


def test_augmentation_is_a_shift_of_at_most_four_pixels_and_a_flip() -> None:
    x = torch.rand(64, 3, 12, 10)
    out = crop_and_flip(x, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (4,) * 4)
    seen = set()
    for image, result in zip(padded, out, strict=True):
        windows = {(top, left): image[:, top : top + 12, left : left + 10] for top in range(9) for left in range(9)}
        matches = [(*at, False) for at, window in windows.items() if torch.equal(result, window)]
        matches += [(*at, True) for at, window in windows.items() if torch.equal(result, window.flip(2))]
        assert matches
        seen.add(matches[0])
    assert len({flip for _, _, flip in seen}) == 2 and len({top for top, _, _ in seen}) > 4

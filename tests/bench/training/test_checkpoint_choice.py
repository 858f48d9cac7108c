"""Which checkpoint stands for a model: the one trained longest, of the same model, radius and seed."""

import json
from pathlib import Path

import pytest
import torch

from bench.data.load import Dataset
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_choice import cards, differences, longest_trained, training_note
from bench.training.job_identity import Job, make_job
from bench.training.loop import train

CPU = torch.device("cpu")


@pytest.fixture
def folder(digits: Dataset, config: Config, tmp_path: Path) -> Path:
    """fc-linear for 1 and for 2 epochs, these in other batches; for 3 with seed 1; and against another radius."""
    names = ["standard[epochs=1]", "standard[epochs=2,batch_size=64]"]
    for name in (*names, "trades[epochs=1,eps=0.2]"):
        train(job(f"fc-linear+{name}", digits, config), digits, tmp_path, CPU, config.train)
    train(job("fc-linear+standard[epochs=3]", digits, config, seed=1), digits, tmp_path, CPU, config.train)
    return tmp_path


def job(name: str, digits: Dataset, config: Config, seed: int = 0) -> Job:
    return make_job(parse_model(name), digits, config, seed)


def test_the_longest_of_the_same_seed(folder: Path, digits: Dataset, config: Config) -> None:
    asked = job("fc-linear", digits, config)
    found = longest_trained(asked, folder)
    assert found.settings["epochs"] == 2 and found.checkpoint(folder).exists()
    assert differences(asked, found) == {"epochs": 2, "batch_size": 64}
    assert training_note(asked, found) == "2 of 100 epochs, batch_size=64"
    assert training_note(asked, asked) == "100 epochs"
    assert longest_trained(job("fc-linear", digits, config, seed=1), folder).settings["epochs"] == 3


def test_its_label_trains_exactly_this(folder: Path, digits: Dataset, config: Config) -> None:
    found = longest_trained(job("fc-linear", digits, config), folder)
    assert found.label == "fc-linear+standard[batch_size=64,epochs=2]"
    assert job(found.label, digits, config).digest() == found.digest()


def test_another_radius_or_recipe_is_another_model(folder: Path, digits: Dataset, config: Config) -> None:
    for name in ("fc-linear+trades", "fc-linear+pgd-at", "deq"):
        asked = job(name, digits, config)
        assert longest_trained(asked, folder) == asked and not asked.checkpoint(folder).exists()
    same_radius = longest_trained(job("fc-linear+trades[eps=0.2]", digits, config), folder)
    assert same_radius.settings["epochs"] == 1


def test_cards_that_lie_or_are_damaged_are_passed_over(folder: Path, digits: Dataset, config: Config) -> None:
    asked = job("fc-linear", digits, config)
    longest = longest_trained(asked, folder).checkpoint(folder)
    card = json.loads(longest.with_suffix(".json").read_text())
    card["settings"]["epochs"] = 99
    longest.with_suffix(".json").write_text(json.dumps(card))
    assert longest_trained(asked, folder).settings["epochs"] == 1, "the file's name says what it was trained with"
    longest.with_suffix(".json").write_text("{")
    assert longest_trained(asked, folder).settings["epochs"] == 1
    assert len(cards(folder, "digits")) == 3

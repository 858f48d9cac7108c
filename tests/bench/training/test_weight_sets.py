"""A file with several sets of weights: none is taken silently, and the one that is named is the one that is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.registry import model
from bench.settings.config import Config, UserModel
from bench.settings.specs import parse_model
from bench.training.job_identity import Job, make_job
from bench.training.loop import build_model

State = dict[str, Tensor]


def network(digits: Dataset, seed: int) -> State:
    torch.manual_seed(seed)
    state = model["fc-linear"].target(digits.images).body.state_dict()
    return {key: value.clone() for key, value in state.items()}


def job(path: Path, digits: Dataset, config: Config, weights: str | None = None) -> Job:
    user = UserModel(arch="fc-linear", checkpoint=path, mean=[0.0], std=[1.0], weights=weights)
    return make_job(parse_model("mine"), digits, config.model_copy(update={"models": {"mine": user}}), seed=0)


def logits(found: Job, digits: Dataset) -> Tensor:
    with torch.no_grad():
        return build_model(found, digits).eval()(as_pixels(digits.x_test[:10]))


def wrapped(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def parameters(state: State) -> State:
    return {key: value for key, value in state.items() if "running" not in key and "num_batches" not in key}


# Two sets as files of other projects hold them, and the keys that lead to either.
SEVERAL: dict[str, tuple[Callable[[State, State], Any], str, str]] = {
    "timm": (lambda a, b: {"epoch": 3, "state_dict": a, "state_dict_ema": b}, "state_dict", "state_dict_ema"),
    "deit": (
        lambda a, b: {"model": a, "optimizer": {"state": {0: {"exp_avg": a}}}, "model_ema": b},
        "model",
        "model_ema",
    ),
    "wrapped": (lambda a, b: {"net": a, "ema": {"decay": 0.999, "module": wrapped(b)}}, "net", "ema"),
    "suffix": (
        lambda a, b: {"model_state_dict": a, "ema_state_dict": wrapped(b)},
        "model_state_dict",
        "ema_state_dict",
    ),
    "other name": (lambda a, b: {"weights": a, "averaged": b}, "weights", "averaged"),
    "nested": (lambda a, b: {"nets": {"last": {"state_dict": a}, "swa": b}}, "nets.last", "nets.swa"),
    "beside": (lambda a, b: {**a, "ema": b}, ".", "ema"),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_of_several_sets_none_is_chosen_silently(form: str, digits: Dataset, config: Config, tmp_path: Path) -> None:
    make, first, second = SEVERAL[form]
    a, b, path = network(digits, 1), network(digits, 2), tmp_path / "both.pt"
    torch.save(make(a, b), path)
    with pytest.raises(BenchError, match="holds several sets of weights") as caught:
        build_model(job(path, digits, config), digits)
    said = str(caught.value)
    assert first in said and second in said and 'weights = "' in said and "\n" not in said
    for key, state in ((first, a), (second, b)):
        torch.save(state, tmp_path / "one.pt")
        expected = logits(job(tmp_path / "one.pt", digits, config), digits)
        assert torch.equal(logits(job(path, digits, config, key), digits), expected)


def test_an_average_without_running_statistics_counts(digits: Dataset, config: Config, tmp_path: Path) -> None:
    state = model["resnet20"].target(digits.images).body.state_dict()
    torch.save({"state_dict": state, "ema": parameters(state)}, tmp_path / "both.pt")
    user = UserModel(arch="resnet20", checkpoint=tmp_path / "both.pt", mean=[0.0], std=[1.0])
    declared = config.model_copy(update={"models": {"mine": user}})
    with pytest.raises(BenchError, match="holds several sets of weights: state_dict, ema"):
        build_model(make_job(parse_model("mine"), digits, declared, seed=0), digits)


def test_an_average_without_names_is_told(digits: Dataset, config: Config, tmp_path: Path) -> None:
    state, path = network(digits, 1), tmp_path / "shadow.pt"
    shadow = [value for key, value in network(digits, 2).items() if key in parameters(state)]
    torch.save({"state_dict": state, "ema": {"decay": 0.999, "shadow_params": shadow}}, path)
    with pytest.raises(BenchError, match=r"ema\.shadow_params: a list without names"):
        build_model(job(path, digits, config), digits)
    build_model(job(path, digits, config, "state_dict"), digits)
    with pytest.raises(
        BenchError, match=r"'ema\.shadow_params' names none of its sets of weights, or several; there is"
    ):
        build_model(job(path, digits, config, "ema.shadow_params"), digits)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: {"state_dict": a, "model": a, "loss": torch.tensor(0.3)},
        lambda a: {"model": a, "optimizer": {"exp_avg": a}, "scheduler": {"best": torch.zeros(3)}},
        lambda a: {
            "state_dict": a,
            "normalizer": {"mean": torch.zeros(1), "std": torch.ones(1)},
            "rng": [torch.ones(7)],
        },
        lambda a: {"anything": {"at": {"all": a}}},
    ],
)
def test_one_set_beside_other_tensors_is_no_choice(
    make: Callable[[State], Any], digits: Dataset, config: Config, tmp_path: Path
) -> None:
    state = network(digits, 1)
    torch.save(make(state), tmp_path / "file.pt")
    torch.save(state, tmp_path / "bare.pt")
    found = logits(job(tmp_path / "file.pt", digits, config), digits)
    assert torch.equal(found, logits(job(tmp_path / "bare.pt", digits, config), digits))


def test_the_choice_is_part_of_the_identity_only_where_it_is_given(
    digits: Dataset, config: Config, tmp_path: Path
) -> None:
    torch.save({"state_dict": network(digits, 1)}, tmp_path / "one.pt")
    silent, chosen = (job(tmp_path / "one.pt", digits, config, key) for key in (None, "state_dict"))
    assert set(silent.identity()["foreign"]) == {"file", "mean", "std"}
    assert chosen.identity()["foreign"]["weights"] == "state_dict"
    assert torch.equal(logits(silent, digits), logits(chosen, digits))
    with pytest.raises(BenchError, match=r"weights = 'state_dict_ema' names none .* there is state_dict"):
        build_model(job(tmp_path / "one.pt", digits, config, "state_dict_ema"), digits)


def test_weights_without_a_checkpoint(digits: Dataset, config: Config) -> None:
    user = UserModel(arch="fc-linear", weights="ema")
    with pytest.raises(BenchError, match="go together"):
        make_job(parse_model("mine"), digits, config.model_copy(update={"models": {"mine": user}}), seed=0)


def test_a_file_that_holds_itself(digits: Dataset, config: Config, tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": network(digits, 1)}
    content["again"] = content
    torch.save(content, tmp_path / "ring.pt")
    build_model(job(tmp_path / "ring.pt", digits, config), digits)

"""The robust data set: its procedure, its file, and that a killed build goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.models.penultimate import penultimate
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.system.files import read_json
from bench.training.checkpoint_files import card_path
from bench.training.job_identity import make_job
from bench.training.loop import train
from bench.training.recipes import robust_images
from bench.training.recipes.robust_dataset import reduction
from bench.training.recipes.robust_images import build_robust_dataset, make_plan, match_features, read_columns
from tests.parts import submodule

CPU = torch.device("cpu")


@pytest.fixture
def small(digits: Dataset) -> Dataset:
    return replace(digits, x_train=digits.x_train[:120], y_train=digits.y_train[:120])


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()


def test_every_image_starts_from_another_one(small: Dataset) -> None:
    plan = make_plan(small, seed=0, images=0, steps=1, step_size=0.1)
    assert sorted(plan.targets.tolist()) == list(range(120))
    assert not bool((plan.starts == plan.targets).any())
    assert len(plan.starts.unique()) > 50
    some = make_plan(small, seed=0, images=50, steps=1, step_size=0.1)
    assert torch.equal(some.targets, plan.targets[:50])
    assert not torch.equal(make_plan(small, 1, 0, 1, 0.1).targets, plan.targets)


def test_one_step_is_the_normalised_gradient_of_the_distance() -> None:
    """For linear features g(x) = Wx the gradient is Wᵀ(Wx − Wt) / ‖Wx − Wt‖."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5, bias=False), nn.Linear(5, 3))
    x, target = 0.4 + 0.2 * torch.rand(2, 4, 1, 4, 4)
    weight = submodule(net, "1", nn.Linear).weight.detach()
    gap = (x - target).flatten(1) @ weight.T
    gradient = (gap / gap.norm(dim=1, keepdim=True)) @ weight
    expected = x - 0.1 * (gradient / gradient.norm(dim=1, keepdim=True)).view_as(x)
    assert torch.allclose(match_features(net, x, target, steps=1, step_size=0.1), expected, atol=1e-6)


def test_the_features_end_near_the_target_ones(small: Dataset) -> None:
    net, x = classifier(), as_pixels(small.x_train)
    start, target = x[:20], x[20:40]
    found = match_features(net, start, target, steps=200, step_size=0.02)
    net.requires_grad_(False)
    before, after = ((penultimate(net, a) - penultimate(net, target)).norm(dim=1).median() for a in (start, found))
    assert float(after) < 0.3 * float(before)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    # What the features do not fix stays the start's: the images are not simply the targets.
    assert float((found - target).flatten(1).norm(dim=1).median()) > 0.5


def test_a_killed_build_goes_on_to_the_same_file(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robust_images, "CHUNK", 20)
    net, plan = classifier(), make_plan(small, 0, 70, 5, 0.1)
    whole, killed = tmp_path / "robust-a.npz", tmp_path / "robust-b.npz"
    build_robust_dataset(net, small, plan, whole, {}, CPU)
    calls = []

    def match(model: nn.Module, start: Tensor, target: Tensor, steps: int, step_size: float) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return match_features(model, start, target, steps, step_size)

    monkeypatch.setattr(robust_images, "match_features", match)
    with pytest.raises(KeyboardInterrupt):
        build_robust_dataset(net, small, plan, killed, {}, CPU)
    assert not killed.exists()
    build_robust_dataset(net, small, plan, killed, {}, CPU)
    assert len(calls) == 3 + 2  # the two chunks that were done are not made again
    one, two = read_columns(whole), read_columns(killed)
    assert one.keys() == two.keys() == {"x_train", "y_train", "target", "start"}
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert one["x_train"].dtype == np.uint8
    assert np.array_equal(one["y_train"], small.y_train[plan.targets].numpy())
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_it_is_trained_on_and_the_card_says_what_it_was(
    small: Dataset, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fc-linear+robust-dataset[source=fc-linear+pgd-at[eps=0.05,steps=2],images=60,steps=3]"
    job = make_job(parse_model(name), small, config, seed=0, epochs=2)
    path = train(job, small, tmp_path, CPU, config.train)
    notes = read_json(card_path(path))["training_set"]
    assert notes["reduced"] == "60 of 120 images, 3 of 1000 steps"
    assert notes["source"] == "fc-linear+pgd-at[eps=0.05,steps=2]"
    assert notes["median_distance"]["end"] < notes["median_distance"]["start"]
    made = tmp_path / "digits" / notes["file"]
    assert len(read_columns(made)["x_train"]) == 60
    # Another model on the same set builds nothing, and a set that was changed is refused.
    other = make_job(parse_model(name.replace("fc-linear+robust", "deq+robust")), small, config, 0, epochs=2)
    monkeypatch.setattr(robust_images, "match_features", None)
    train(other, small, tmp_path, CPU, config.train)
    columns = read_columns(made)
    columns["x_train"][0, 0, 0, 0] ^= 1
    np.savez(made, allow_pickle=False, **columns)
    with pytest.raises(BenchError, match="does not hold what its"):
        train(replace(other, settings={**other.settings, "lr": 0.5}), small, tmp_path, CPU, config.train)


def test_the_weights_identity_holds_how_the_source_was_trained(digits: Dataset, config: Config) -> None:
    def digest(epochs: int, text: str = "resnet20+robust-dataset") -> str:
        return make_job(parse_model(text), digits, config, 0, epochs).digest()

    assert digest(1, "deq") == make_job(parse_model("deq+standard"), digits, config, 0, 1).digest()
    assert len({digest(1), digest(2), digest(1, "resnet20+robust-dataset[source=resnet20]")}) == 3
    with pytest.raises(BenchError, match="did you mean 'resnet20'"):
        digest(1, "deq+robust-dataset[source=resnet2]")


def test_the_published_size_is_not_called_reduced() -> None:
    assert reduction(45_000, 45_000, 1000) == ""
    assert reduction(5_000, 45_000, 200) == "5000 of 45000 images, 200 of 1000 steps"

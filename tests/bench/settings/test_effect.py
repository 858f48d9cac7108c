"""An option that would change nothing is refused where it is given; defaults and groups of bench.toml are let pass."""

from pathlib import Path

import pytest
import torch

from bench.registry import attack, model
from tests.bench.helpers import Inside, last_line

DRY = ("--dry-run", "--epochs", "0", "--eps", "8")


@pytest.mark.parametrize(
    ("name", "option", "belongs_to"),
    [
        ("deq[gradient_tol=1e-3]", "gradient_tol=0.001", "gradient=implicit"),
        ("deq[gradient_steps=9]", "gradient_steps=9", "unrolled or phantom"),
        ("deq[train_gradient=one-step,train_gradient_tol=1e-2]", "train_gradient_tol=0.01", "train_gradient=implicit"),
        ("lyadeq[solver=broyden,train_solver=broyden,memory=3]", "memory=3", "alternating or anderson"),
        ("mondeq[solver=fixed-point,train_solver=fixed-point,beta=0.5]", "beta=0.5", "alternating or anderson"),
        ("deq+standard[augment=true]", "augment=True", "not to be augmented"),
    ],
)
def test_options_of_models_and_recipes(name: str, option: str, belongs_to: str, tmp_path: Path, inside: Inside) -> None:
    said = last_line(inside(tmp_path, "run", "--models", name, *DRY, code=2))
    assert f"{option} has no effect" in said and belongs_to in said and "leave it out" in said


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("pgd[random_start=false,restart=2]", "restart=2"),
        ("apgd[loss=ce,targets=3]", "targets=3"),
        ("autoattack[attacks=square,iterations=5]", "iterations=5"),
        ("autoattack[attacks=apgd-ce,targets=5]", "targets=5"),
        ("autoattack[attacks=apgd-ce+fab-t,queries=5]", "queries=5"),
        ("adaptive[members=apgd-ce,twin=fc-linear]", "twin=fc-linear"),
        ("adaptive[members=square,iterations=5]", "iterations=5"),
        ("adaptive[members=apgd-ce,targets=5]", "targets=5"),
    ],
)
def test_options_of_attacks(name: str, option: str, tmp_path: Path, inside: Inside) -> None:
    said = last_line(inside(tmp_path, "run", "--models", "fc-linear", "--attacks", name, *DRY, code=2))
    assert f"{option} has no effect" in said and "leave it out" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--models", "deq[gradient=implicit,gradient_tol=1e-3]"),
        ("--models", "deq[gradient=phantom,gradient_steps=9]"),
        ("--models", "deq[gradient_steps=5,gradient_tol=1e-6]"),  # its defaults
        ("--models", "deq[solver=broyden,memory=3]"),  # training has it
        ("--models", "fc-linear+standard[augment=false]"),
        ("--models", "fc-linear", "--attacks", "pgd[restart=2],apgd[loss=dlr-targeted,targets=2]"),
    ],
)
def test_options_with_an_effect_are_taken(arguments: tuple[str, ...], tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "run", *arguments, *DRY)


def test_settings_of_a_group_may_be_idle_for_some_of_it(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bench.toml").write_text('[options.deq]\ngradient_steps = 9\n[models.mine]\narch = "deq"\n')
    inside(tmp_path, "run", "--models", "deq,mine", *DRY)
    with (tmp_path / "bench.toml").open("a") as file:
        file.write("options = { gradient_steps = 7 }\n")
    assert "gradient_steps=7 has no effect" in last_line(inside(tmp_path, "run", "--models", "mine", *DRY, code=2))


def test_training_options_of_a_checkpoint_from_elsewhere(tmp_path: Path, inside: Inside) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pt")
    own = '[models.mine]\narch = "deq"\ncheckpoint = "net.pt"\nmean = [0]\nstd = [1]\n'
    (tmp_path / "bench.toml").write_text(own)
    for name in ("mine[train_tol=1e-2]", "mine"):
        said = last_line(inside(tmp_path, "run", "--models", name, *DRY, code=2))
        assert ("train_tol=1e-2 has no effect, its weights come from a checkpoint" in said) == ("[" in name)


def test_a_baseline_that_no_row_can_be(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bench.toml").write_text('[run]\nbaseline = "deqq"\n')
    said = last_line(inside(tmp_path, "run", "--models", "fc-linear", *DRY, code=2))
    assert "[run] baseline: unknown model 'deqq': did you mean 'deq'?" in said


def test_every_idle_option_is_one() -> None:
    for entry in (*model, *attack):
        idle = getattr(entry.traits, "idle", None)
        if idle:
            assert idle(**entry.defaults()).keys() <= entry.defaults().keys(), entry.name

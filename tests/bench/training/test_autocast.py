"""bfloat16 in training: where it applies, where it must not, and that nothing else notices."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset, as_pixels
from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.lyapunov.function import Lyapunov
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import _Run, accuracy, build_model, train
from bench.training.recipes.standard import TrainingStep, standard
from tests.parts import submodule


def run_of(name: str, digits: Dataset, config: Config, folder: Path) -> _Run:
    job = make_job(parse_model(name), digits, config, seed=0, epochs=1)
    return _Run(job, digits, folder / "x.safetensors", torch.device("cpu"), 1e9)


@pytest.mark.parametrize("recipe", ["standard[autocast=true]", "trades[autocast=true,steps=2]"])
def test_convolutions_are_in_bfloat16_and_weights_and_gradients_in_float32(
    recipe: str, digits: Dataset, config: Config, tmp_path: Path
) -> None:
    run = run_of(f"resnet20+{recipe}", digits, config, tmp_path)
    types = set()
    for module in run.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: types.add(output.dtype))
    run._one_step(0, 0, torch.arange(32))
    assert types == {torch.bfloat16}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in run.model.parameters())
    types.clear()
    accuracy(run.model, digits.x_test[:8], digits.y_test[:8], torch.device("cpu"))
    assert types == {torch.float32}


def test_a_forward_under_no_grad_costs_the_next_one_no_gradient(
    digits: Dataset, config: Config, tmp_path: Path
) -> None:
    """Autocast's cache of weights, filled without gradients, would be used again with them."""

    def looks_first(model: nn.Module, x: Tensor, y: Tensor, moment: TrainingStep) -> Tensor:
        with torch.no_grad():
            model(x)
        return standard(model, x, y, moment)

    run = run_of("resnet20+standard[autocast=true]", digits, config, tmp_path)
    run.job = replace(run.job, recipe=replace(run.job.recipe, target=looks_first))
    run._one_step(0, 0, torch.arange(32))
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in run.model.parameters())


@pytest.mark.parametrize("recipe", ["standard[autocast=true]", "pgd-at[autocast=true,steps=2]"])
def test_the_fixed_point_stays_in_float32(recipe: str, digits: Dataset, config: Config, tmp_path: Path) -> None:
    run = run_of(f"lyadeq+{recipe}", digits, config, tmp_path)
    inside, extracted = set(), set()
    for module in run.model.modules():
        if isinstance(module, ImplicitCell | Lyapunov):
            for part in [module, *module.modules()]:
                part.register_forward_hook(
                    lambda _m, _i, output: inside.add(output.dtype) if isinstance(output, torch.Tensor) else None
                )
    extractor = submodule(run.model, "body.extractor", nn.Module)
    extractor.register_forward_hook(lambda _module, _inputs, output: extracted.add(output.dtype))
    run._one_step(0, 0, torch.arange(32))
    assert extracted == {torch.bfloat16}
    assert inside == {torch.float32}


def test_it_is_off_by_default_and_part_of_the_weights_identity(digits: Dataset, config: Config) -> None:
    plain, fast = (make_job(parse_model(n), digits, config, 0) for n in ("deq", "deq+standard[autocast=true]"))
    assert not plain.settings["autocast"]
    assert plain.digest() != fast.digest()
    declared = config.train.model_copy(update={"autocast": True})
    everywhere = make_job(parse_model("deq"), digits, config.model_copy(update={"train": declared}), 0)
    assert everywhere.digest() == fast.digest()


def test_a_model_trained_in_bfloat16_learns(digits: Dataset, config: Config, tmp_path: Path) -> None:
    job = make_job(parse_model("deq+standard[autocast=true]"), digits, config, seed=0, epochs=10)
    net = build_model(job, digits)
    load_weights(train(job, digits, tmp_path, torch.device("cpu"), config.train), net)
    net.eval()
    assert accuracy(net, digits.x_test, digits.y_test, torch.device("cpu")) > 0.9
    assert net(as_pixels(digits.x_test[:2])).dtype == torch.float32

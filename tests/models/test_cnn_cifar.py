"""The large baselines on real CIFAR-10 images: one optimisation step and one PGD step, within 24 GB."""

import resource
from pathlib import Path

import pytest
import torch

from bench.attacks.core.contract import linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd
from bench.data.load import as_pixels, load
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.job import make_job
from bench.training.loop import _Run

BATCH = 128  # the benchmark's own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet56", "vgg16", "wrn-28-10"])
def test_one_step_of_training_and_of_pgd(name: str, real_data: Path, config: Config, tmp_path: Path) -> None:
    data = load("cifar10", real_data)
    job = make_job(parse_model(name), data, config, seed=0, epochs=1)
    run = _Run(job, data, tmp_path / "x.safetensors", torch.device("cpu"), 1e9)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    run._one_step(0, 0, torch.arange(BATCH))
    assert all(not torch.equal(value, before[key]) for key, value in run.model.named_parameters())
    x, y = as_pixels(data.x_test[:8]), data.y_test[:8]
    radius = torch.full((8,), 8 / 255)
    draws = Draws(0, data.test_hash, range(8))
    adversarial = run_attack(lambda *given: pgd(*given, steps=1), run.model, x, y, radius, draws)
    assert float(linf(x, adversarial).max()) <= 8 / 255 + 1e-6
    assert float(linf(x, adversarial).min()) > 1 / 255
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(name, f"{gigabytes:.1f} GB at most so far")
    assert gigabytes < 24

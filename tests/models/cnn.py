"""What every CNN baseline has to pass: its size, the model contract, channels-last, one step on CIFAR-10."""

import resource
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd
from bench.checks import models as points
from bench.data.load import as_pixels, load
from bench.models.images import Images
from bench.registry import model
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.job_identity import make_job
from bench.training.loop import _Run

CIFAR = Images((3, 32, 32), 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
MNIST = Images((1, 28, 28), 10, (0.13,), (0.31,))
DIGITS = Images((1, 8, 8), 10, (0.3,), (0.38,))
SIZES = {"32x32": CIFAR, "28x28": MNIST, "8x8": DIGITS}
BATCH = 128  # the benchmark's own


def make(name: str, images: Images = CIFAR, **options: object) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = model[name].target(images, **options)
    return net.eval()


def count_parameters(name: str, classes: int, **options: str) -> int:
    images = Images(CIFAR.shape, classes, CIFAR.mean, CIFAR.std)
    with torch.device("meta"):
        net: nn.Module = model[name].target(images, **options)
    return sum(p.numel() for p in net.parameters())


def trained_a_little(net: nn.Module, images: Images) -> nn.Module:
    """With running statistics that fit, so that logits are of ordinary size."""
    net.train()
    for _ in range(20):
        net(torch.rand(32, *images.shape))
    return net.eval()


def assert_takes(name: str, images: Images) -> None:
    assert make(name, images)(torch.rand(2, *images.shape)).shape == (2, 10)


def assert_contract_holds(net: nn.Module, images: Images) -> None:
    trained_a_little(net, images)
    x, y = torch.rand(12, *images.shape), torch.arange(12) % 10
    assert points._shape(net, x, 10) is None
    assert points._twice(net, x) is None
    assert points._batch_mates(net, x) is None
    assert points._state(net, x) is None
    assert points._gradient(net, x, y) is None
    assert points._differences(net, x, y) is None


def assert_convolutions_run_channels_last(name: str) -> None:
    net, seen = make(name, DIGITS), list[Tensor]()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 1:
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.rand(3, *DIGITS.shape))
    # At 1×1 pixels every layout is channels-last and torch reports either.
    large = [x for x in seen if x.shape[-1] > 1]
    assert large
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in large)


def assert_one_step_of_training_and_of_pgd(name: str, folder: Path, data_dir: Path, config: Config) -> None:
    """On real CIFAR-10 images, within 24 GB."""
    data = load("cifar10", data_dir)
    job = make_job(parse_model(name), data, config, seed=0, epochs=1)
    run = _Run(job, data, folder / "x.safetensors", torch.device("cpu"), 1e9)
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

"""Models as strangers write them, around one small network: a plugin, which stands beside `weights.pt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm
from torch.utils.checkpoint import checkpoint

from bench.models.images import Images
from bench.registry import model


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    net.load_state_dict(torch.load(Path(__file__).parent / "weights.pt", weights_only=True))
    return net


class Around(nn.Module):
    """The network, and how it is asked."""

    def __init__(self, ask: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.ask = network(), ask

    def forward(self, x: Tensor) -> Any:
        return self.ask(self.net, x)


class Changed(torch.autograd.Function):
    """y in place of x, whose gradient x gets."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _rounds_in_place(net: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        x.copy_((x * 4).round() / 4)
    return net(x)


def _normalises_in_place(net: nn.Module, x: Tensor) -> Any:
    x.sub_(0.5).div_(0.5)
    return net(x * 0.5 + 0.5)


def _clamps_in_place(net: nn.Module, x: Tensor) -> Any:
    x.data.clamp_(0.02, 0.98)
    return net(x)


def _noise_of_numpy(net: nn.Module, x: Tensor) -> Any:
    return net(x + 0.25 * torch.from_numpy(np.random.randn(*x.shape).astype("f4")))


def _noise_of_the_image(net: nn.Module, x: Tensor) -> Any:
    generator = torch.Generator().manual_seed(int(x.sum() * 1e6) % 99991)
    return net(x + 0.25 * torch.randn(x.shape, generator=generator))


def _off_grid(x: Tensor) -> Tensor:
    """1 for an image with a pixel that no byte has, else 0, (N, 1)."""
    return (255 * x - (255 * x).round()).abs().flatten(1).amax(1, keepdim=True).gt(0.01).float()


ASKED: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "base": lambda net, x: net(x),
    # Faults that make a number up.
    "nan": lambda net, x: net((x * x).sqrt()),
    "noise": lambda net, x: net(x + 0.25 * torch.randn_like(x)),
    "dropout": lambda net, x: net(nn.functional.dropout(x, 0.3, True)),
    "numpy-noise": _noise_of_numpy,
    "seeded-noise": _noise_of_the_image,
    "softmax": lambda net, x: (net(x) * 30).softmax(1),
    # Faults that would without copies; and what the first and the last are out of place.
    "in-place-round": _rounds_in_place,
    "in-place-normalise": _normalises_in_place,
    "in-place-clamp": _clamps_in_place,
    "rounded": lambda net, x: net(Changed.apply(x, (x * 4).round() / 4)),
    "clamped": lambda net, x: net(Changed.apply(x, x.clamp(0.02, 0.98))),
    # No gradient.
    "no-grad": torch.no_grad()(lambda net, x: net(x)),
    "numpy": lambda net, x: net(torch.from_numpy(x.detach().numpy().copy())),
    "detached": lambda net, x: net(x.detach()),
    "quantised": lambda net, x: net((x * 8).round() / 8),
    "saturated": lambda net, x: net(x) * 1000,
    # What cannot be evaluated.
    "tuple": lambda net, x: (net(x), x),
    "float64": lambda net, x: net(x).double(),
    "half": lambda net, x: net(x).half(),
    "nan-off-grid": lambda net, x: net(x) + 0 / (1 - _off_grid(x)),
    "raises": lambda net, x: net(x[:, :, 1:]),
    # Nothing is wrong.
    "views": lambda net, x: net(x.view(len(x), -1).view(-1, 1, 8, 8)),
    "non-contiguous": lambda net, x: net(x.permute(0, 1, 3, 2).transpose(2, 3)),
    "channels-last": lambda net, x: net(x.contiguous(memory_format=torch.channels_last)),
    "squeezed": lambda net, x: net(x).squeeze(),
    "cloned": lambda net, x: net(x.clone()),
    "checkpointed": lambda net, x: checkpoint(net, x, use_reentrant=False),
    "idle-dropout": lambda net, x: net(nn.functional.dropout(x, 0.5, net.training)),
    "auxiliary": lambda net, x: (net(x), x) if net.training else net(x),
}


def _with_hook(images: Images) -> nn.Module:
    net, seen = network(), list[Tensor]()
    net[1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    return net


def _with_backward_hook(images: Images) -> nn.Module:
    net = network()
    net[2].register_full_backward_hook(lambda module, before, after: None)
    return net


def _normed(norm: Callable[[nn.Module], object]) -> Callable[[Images], nn.Module]:
    def build(images: Images) -> nn.Module:
        net = network()
        norm(net[1])
        return net

    return build


def _quantised(images: Images) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})


def _sets_the_default_type(images: Images) -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return network().float()


MADE: dict[str, Callable[[Images], Any]] = {
    "parallel": lambda images: nn.DataParallel(network()),
    "scripted": lambda images: torch.jit.script(network().eval()),
    "traced": lambda images: torch.jit.trace(network().eval(), torch.zeros(1, 1, 8, 8)),
    "compiled": lambda images: torch.compile(network(), backend="eager"),
    "weight-norm": _normed(parametrizations.weight_norm),
    "weight-norm-old": _normed(old_weight_norm),
    "hook": _with_hook,
    "backward-hook": _with_backward_hook,
    # What cannot be evaluated.
    "lazy": lambda images: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
    "dynamically-quantised": _quantised,
    "none": lambda images: None,
    "default-dtype": _sets_the_default_type,
}


def _register(name: str, build: Callable[[Images], Any]) -> None:
    def made(images: Images) -> Any:
        return build(images)

    made.__qualname__ = name
    model(name, pretrained=True)(made)


def register() -> None:
    """All of them; importing this file for its tables alone registers nothing."""
    for name, ask in ASKED.items():
        _register(name, lambda images, ask=ask: Around(ask))  # type: ignore[misc]
    for name, build in MADE.items():
        _register(name, build)


if __name__ != "tests.bench.honest_numbers.strangers":
    register()

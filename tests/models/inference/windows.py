"""Images that differ in windows, networks on them, and how many pixels their first convolution is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.images import Images
from bench.models.resnet import ResNetFeatures
from bench.registry import model
from tests.models.inference.test_folding import stirred

COLOUR = Images((3, 32, 32), 10, (0.3, 0.4, 0.5), (0.2, 0.3, 0.25))
N = 5


def network(name: str = "resnet20") -> nn.Module:
    torch.manual_seed(0)
    return stirred(model[name].target(COLOUR))


def features_of(net: nn.Module) -> ResNetFeatures:
    return next(m for m in net.modules() if isinstance(m, ResNetFeatures))


def images(n: int = N, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def changed(x: Tensor, rows: Tensor, top: Tensor, left: Tensor, side: int, seed: int = 0) -> Tensor:
    """x[rows] with other pixels in the windows."""
    other, generator = x[rows].clone(), torch.Generator().manual_seed(seed)
    for image, a, b in zip(other, top.tolist(), left.tolist(), strict=True):
        image[:, a : a + side, b : b + side] = torch.rand(3, side, side, generator=generator, dtype=x.dtype)
    return other


@contextmanager
def stem_pixels() -> Iterator[list[int]]:
    """Collects how many pixels the convolutions of colour images are asked for, call by call."""
    asked, real = list[int](), functional.conv2d

    def conv2d(x: Tensor, weight: Tensor, *rest: Any, **more: Any) -> Tensor:
        y = real(x, weight, *rest, **more)
        if weight.shape[1] == 3:
            asked.append(y[:, 0].numel())
        return y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "conv2d", conv2d)
        yield asked


class Around(nn.Module):
    """A defence around the network."""

    def __init__(self, net: nn.Module, act: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.act = net, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.net, x)

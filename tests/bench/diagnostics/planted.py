"""Faults of models that people wrote: each around a trained network."""

import hashlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.load import Dataset, as_pixels


class Around(nn.Module):
    """A network inside another; subclasses say how it is asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def ask(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))


class Lookup(Around):
    """A table of the test images, by what they are to the bit, or by the nearest within `reach`."""

    def __init__(self, net: nn.Module, data: Dataset, reach: float) -> None:
        super().__init__(net)
        self.images, self.labels, self.reach = as_pixels(data.x_test).flatten(1), data.y_test, reach

    def forward(self, x: Tensor) -> Tensor:
        distance, nearest = torch.cdist(x.flatten(1), self.images.to(x), p=torch.inf).min(1)
        return torch.where((distance <= self.reach)[:, None], self.table(nearest).to(x), self.ask(x))

    def table(self, nearest: Tensor) -> Tensor:
        return 10 * functional.one_hot(self.labels[nearest], 10)


class Hysteresis(Around):
    """Logits that lean towards the batch before."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.before: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.ask(x)
        lean = 0.0 if self.before is None else 0.3 * self.before
        self.before = logits.detach().mean(0)
        return logits + lean


class Counter(Around):
    """Another answer at every so many calls, or from one on."""

    def __init__(self, net: nn.Module, *, every: int = 0, after: int = 0) -> None:
        super().__init__(net)
        self.every, self.after, self.calls = every, after, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        turned = self.calls % self.every == 0 if self.every else self.calls > self.after
        return self.ask(x).roll(1, 1) if turned else self.ask(x)


class EarlyExit(Around):
    """A coarse answer for the whole batch where it looks easy."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().mean()) > 0.28:
            return self.ask(functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0))
        return self.ask(x)


class HashNoise(Around):
    """Noise that is always the same for the same image."""

    def forward(self, x: Tensor) -> Tensor:
        noise = []
        for image in x.detach():
            seed = int.from_bytes(hashlib.sha256(image.cpu().numpy().tobytes()).digest()[:7], "big")
            noise.append(torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(x))
        return self.ask((x + 0.1 * torch.stack(noise)).clamp(0, 1))


class Half(Around):
    """Its layers in float16 or bfloat16."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(net)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", self.dtype):
            logits = self.ask(x)
        return logits.to(x.dtype)


class HalfInput(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x.half().to(x.dtype))


class Decoy(Around):
    """Other logits for whoever takes gradients."""

    def __init__(self, net: nn.Module, looks: Callable[[Tensor], bool]) -> None:
        super().__init__(net)
        self.looks = looks

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x).flip(1) if self.looks(x) else self.ask(x)


class Before(Around):
    """Something done to the image first."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(net)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(self.change(x))


def ripple(x: Tensor) -> Tensor:
    """Waves of a ten-thousandth's height, whose slope is twenty."""
    return x + 1e-4 * torch.sin(2e5 * x)


def steep(x: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.tanh(200 * (x - 0.45))


def straight_through(x: Tensor) -> Tensor:
    return x + ((7 * x).round() / 7 - x).detach()


def purify(x: Tensor) -> Tensor:
    """Five steps towards a smoother image, found by gradients of its own; the outer one passes it by."""
    with torch.enable_grad():
        at = x.detach().clone()
        for _ in range(5):
            at = at.detach().requires_grad_()
            rough = (at - functional.avg_pool2d(at, 3, 1, 1)).square().sum()
            at = at - 0.2 * torch.autograd.grad(rough, at)[0]
    return x + (at.detach() - x.detach())


class WrongSkip(Around):
    """A second path to the logits whose gradient is missing."""

    def __init__(self, net: nn.Module, features: int = 64) -> None:
        super().__init__(net)
        generator = torch.Generator().manual_seed(0)
        self.path = nn.Parameter(torch.randn(features, 10, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x) + x.detach().flatten(1) @ self.path.to(x)

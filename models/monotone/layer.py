"""The monotone layer z = ReLU(W z + h) of Wei & Kolter (ICLR 2022): W from a free M, dense or convolutional."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 3
STRETCH = 3.0  # c: the entries of Λ lie in (1/c, 1)


@dataclass(frozen=True)
class Operator:
    """z ↦ W z on flattened states, (N, n) to (N, m).

    Attributes:
        weight: (m, n), or (D, C, 3, 3) for a convolution padded with zeros.
        shape: of one state, (n,) or (C, H, W).
    """

    weight: Tensor
    shape: tuple[int, ...]

    def __call__(self, z: Tensor) -> Tensor:
        """(N, n) to (N, m)."""
        if self.weight.ndim == 2:
            return z @ self.weight.mT
        return functional.conv2d(z.view(-1, *self.shape), self.weight, padding=KERNEL // 2).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        """y ↦ Wᵀy, (N, m) to (N, n)."""
        if self.weight.ndim == 2:
            return y @ self.weight
        image = y.view(-1, len(self.weight), *self.shape[1:])
        return functional.conv_transpose2d(image, self.weight, padding=KERNEL // 2).flatten(1)

    def absolute(self) -> "Operator":
        """|W|, entry by entry."""
        return Operator(self.weight.abs(), self.shape)

    @property
    def terms(self) -> int:
        """How many products one entry of W z sums."""
        return self.weight[0].numel()


class Monotone(nn.Module):
    """W = D^{-1/2} M D^{-1/2} with M free, so that W *and* |W| satisfy I − W ⪰ mI.

    dᵢ = ½ Σⱼ(|Mᵢⱼ| + |Mⱼᵢ|)/(1 − m) + 1e-8 makes (1 − m)D − (|M| + |M|ᵀ)/2 diagonally dominant, hence
    positive semidefinite; and the symmetric part of W nowhere exceeds that of |W|. A convolution has one d
    per channel, from the sums over an inner pixel: where zeros are padded in, sums are only smaller.
    Since |W| then has spectral radius at most 1 − m, z ↦ ReLU(W z + h), forward–backward splitting with
    step 1, converges from any start, and so does its interval form.

    With `rescale`, W ← Λ⁻¹WΛ, Λ = (1 − 1/c) sigmoid(p) + 1/c: the same holds in the Λ-weighted inner
    product ⟨Λ·, Λ·⟩ alone.

    Args:
        shape: of one state, (n,) or (C, H, W).
        m: monotonicity in (0, 1).
        rescale: learn Λ.
    """

    def __init__(self, shape: tuple[int, ...], m: float, rescale: bool) -> None:
        super().__init__()
        channels, convolutional = shape[0], len(shape) == 3
        self.shape, self.target = shape, m
        self.free = nn.Parameter(torch.empty(channels, channels, *((KERNEL, KERNEL) if convolutional else ())))
        nn.init.kaiming_uniform_(self.free, a=5**0.5)
        self.stretch = nn.Parameter(torch.zeros(channels)) if rescale else None
        # A buffer, since annealing changes it: a resumed training goes on with the value it had.
        self.register_buffer("m", torch.tensor(m))

    def anneal(self, start: float, progress: float) -> None:
        """Set m on the line from `start` (progress 0) to its own value (progress 1)."""
        self.get_buffer("m").fill_(start + (self.target - start) * progress)

    def operator(self) -> Operator:
        """W, differentiable in M and Λ."""
        magnitude = self.free.abs()
        if magnitude.ndim == 4:
            magnitude = magnitude.sum((2, 3))
        d = 0.5 * (magnitude.sum(0) + magnitude.sum(1)) / (1 - self.get_buffer("m")) + 1e-8
        scale, weights = d.rsqrt(), self.weights()
        rest = (1,) * (self.free.ndim - 2)
        left, right = (scale / weights).view(-1, 1, *rest), (scale * weights).view(1, -1, *rest)
        return Operator(self.free * left * right, self.shape)

    def weights(self) -> Tensor:
        """The diagonal of Λ, (channels,); ones where nothing is rescaled."""
        if self.stretch is None:
            return self.free.new_ones(len(self.free))
        return (1 - 1 / STRETCH) * torch.sigmoid(self.stretch) + 1 / STRETCH


@dataclass(frozen=True)
class MonotoneCell:
    """f(z, h) = ReLU(W z + h), z and h flattened, (N, n)."""

    operator: Operator

    def __call__(self, z: Tensor, h: Tensor, track: bool = False) -> Tensor:
        return torch.relu(self.operator(z) + h)

    def jacobian(self, z: Tensor, h: Tensor) -> Tensor:
        """∂f/∂z, (N, n, n), of the dense form."""
        return ((self.operator(z) + h) > 0)[:, :, None] * self.operator.weight

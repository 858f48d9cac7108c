"""CIFAR ResNets (He et al. 2016, Section 4.2): 6n + 2 layers."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.images import Classifier, Images
from bench.models.inference.fast_residual import chain
from bench.models.inference.folding import fold_pairs, fold_sequence, inert, untouched
from bench.models.inference.local_recompute import Layer, first_layers
from bench.models.weights.architecture_renames import resnet_key
from bench.registry import model

LOCAL = 3  # blocks of the first stage, at most, that a search may have computed in part: all three of ResNet-20
WIDTH = 64  # features after the last stage and global average pooling

Shortcut = Literal["pad", "conv"]


class PadShortcut(nn.Module):
    """Option A: subsample and pad with zero channels; no parameters."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (outside - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))

    def back_to_input(self, gradient: Tensor, into: Tensor) -> Tensor:
        """`into`, with the gradient in x added to it."""
        inside = gradient[:, self.padding : gradient.shape[1] - self.padding]
        into[:, :, :: self.stride, :: self.stride].add_(inside)
        return into


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, the identity where the shape stays.

    ReLUs act in place, here and below: on a CPU they take as long as fetching their memory does.
    """

    def __init__(self, inside: int, outside: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 and shortcut == "pad":
            self.shortcut = PadShortcut(inside, outside, stride)
        elif stride > 1:
            conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x, self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x))))))

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """ReLU(shortcut(x) + y), written over y."""
        return torch.relu_(y.add_(self.shortcut(x)))

    def back_to_input(self, gradient: Tensor, into: Tensor) -> Tensor:
        """`into`, with the gradient in x added to it, of a shortcut without parameters."""
        pad = self.shortcut
        return pad.back_to_input(gradient, into) if isinstance(pad, PadShortcut) else into.add_(gradient)

    def plain(self) -> bool:
        """Whether it is convolutions, ReLUs and a shortcut without parameters, all fixed, and nothing else."""
        parts = [type(part) for part in (self.conv1, self.conv2, self.bn1, self.bn2)]
        return (
            parts == [nn.Conv2d, nn.Conv2d, nn.Identity, nn.Identity]
            and all(c.padding_mode == "zeros" and not isinstance(c.padding, str) for c in (self.conv1, self.conv2))
            and type(self.shortcut) in (nn.Identity, PadShortcut)
            and inert(self)
        )

    def fold(self) -> None:
        fold_pairs(self, [("conv1", "bn1"), ("conv2", "bn2")])
        if isinstance(self.shortcut, nn.Sequential):
            fold_sequence(self.shortcut)


class ResNetFeatures(nn.Module):
    """Normalised images (N, channels, H, W) to features (N, 64).

    Weights and states are channels-last: 1.5 times as fast in training on a CPU (32×32 images).

    Args:
        channels: of the images.
        depth: 6n + 2, e.g. 20 or 56.
        shortcut: where the shape changes: `pad`, the paper's option A for CIFAR, or `conv`, a 1×1
            convolution with BN (option B), which many published checkpoints have.
    """

    def __init__(self, channels: int, depth: int, shortcut: Shortcut = "pad") -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"ResNet depth must be 6n + 2, got {depth}")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        inside = 16
        for outside in (16, 32, WIDTH):
            for _ in range((depth - 2) // 6):
                blocks.append(BasicBlock(inside, outside, 1 if inside == outside else 2, shortcut))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.local = min(LOCAL, (depth - 2) // 6)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        known = first_layers(self, x)
        if known is not None:
            return cast(Tensor, self.blocks[self.local :](known).mean((2, 3)))
        x = torch.relu_(self.bn(self.conv(x)))
        blocks = self._plain() if x.requires_grad else None
        return (chain(blocks, x) if blocks else self.blocks(x)).mean((2, 3))

    def layers(self) -> list[Layer]:
        """The stem and the first blocks, layer by layer; empty where one of them was replaced or has hooks."""
        blocks = list(self.blocks[: self.local])
        if type(self.blocks) is not nn.Sequential or any(type(b) is not BasicBlock for b in blocks):
            return []
        found = [Layer(self.conv, self.bn)]
        for block in cast(list[BasicBlock], blocks):
            if type(block.shortcut) is not nn.Identity:
                return []
            found += [Layer(block.conv1, block.bn1), Layer(block.conv2, block.bn2, skip=True)]
        modules = [self.conv, self.bn, self.blocks, *(m for block in blocks for m in block.modules())]
        return found if untouched(modules) and all(layer.holds() for layer in found) else []

    def fold(self) -> None:
        fold_pairs(self, [("conv", "bn")])

    def _plain(self) -> list[BasicBlock] | None:
        """The blocks, where their gradient is one in their input alone."""
        blocks = [block for block in self.blocks if type(block) is BasicBlock and block.plain()]
        only = type(self.blocks) is nn.Sequential and untouched([self.blocks]) and len(blocks) == len(self.blocks)
        return blocks if only else None


@model("resnet56", rename=resnet_key(blocks_per_stage=9))
def resnet56(images: Images, *, shortcut: Shortcut = "pad") -> nn.Module:
    """CIFAR ResNet-56: 0.85 M parameters with `pad` shortcuts, 0.86 M with `conv`."""
    features = ResNetFeatures(images.shape[0], 56, shortcut)
    return Classifier(images, nn.Sequential(features, nn.Linear(WIDTH, images.classes)))

"""CIFAR ResNets (He et al. 2016, Section 4.2): 6n + 2 layers, option-A shortcuts."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 64  # features after the last stage and global average pooling


class BasicBlock(nn.Module):
    """Two 3×3 convolutions; where the shape changes, the shortcut subsamples and pads with zeros (option A)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.padding = stride, (outside - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(x + y)


class ResNetFeatures(nn.Module):
    """Normalised images (N, channels, H, W) to features (N, 64).

    Args:
        channels: of the images.
        depth: 6n + 2, e.g. 20 or 56.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"ResNet depth must be 6n + 2, got {depth}")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        inside = 16
        for outside in (16, 32, WIDTH):
            for _ in range((depth - 2) // 6):
                blocks.append(BasicBlock(inside, outside, stride=1 if inside == outside else 2))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))

"""Wide residual networks (Zagoruyko & Komodakis 2016): 6n + 4 layers, pre-activation blocks."""

from typing import cast

import torch
from torch import Tensor, nn

from bench.models.images import Classifier, Images
from bench.models.inference.folding import fold_pairs
from bench.models.weights.architecture_renames import wide_resnet_key
from bench.registry import model


class WideBlock(nn.Module):
    """BN–ReLU–conv twice. Where the shape changes, the 1×1 shortcut too starts behind the first BN and ReLU."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.shortcut = None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        y = self.conv2(torch.relu(self.bn2(self.conv1(active))))
        return cast(Tensor, y + (x if self.shortcut is None else self.shortcut(active)))

    def fold(self) -> None:
        fold_pairs(self, [("conv1", "bn2")])


class WideResNetFeatures(nn.Module):
    """Normalised images (N, channels, H, W) to features (N, 64·width).

    Args:
        channels: of the images.
        depth: 6n + 4, e.g. 28.
        width: factor on the 16, 32, 64 channels of the stages.
    """

    def __init__(self, channels: int, depth: int, width: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth of a wide ResNet must be 6n + 4, got {depth}")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inside = 16
        for stage, outside in enumerate((16 * width, 32 * width, 64 * width)):
            for index in range((depth - 4) // 6):
                blocks.append(WideBlock(inside, outside, stride=2 if stage and not index else 1))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inside)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.conv(x.contiguous(memory_format=torch.channels_last)))
        return torch.relu(self.bn(x)).mean((2, 3))


def wide_resnet(images: Images, depth: int, width: int) -> nn.Module:
    """A wide ResNet behind the images' normalisation."""
    features = WideResNetFeatures(images.shape[0], depth, width)
    return Classifier(images, nn.Sequential(features, nn.Linear(64 * width, images.classes)))


@model("wrn-28-10", rename=wide_resnet_key(blocks_per_stage=4))
def wrn_28_10(images: Images) -> nn.Module:
    """WideResNet-28-10, without dropout, 36.5 M parameters."""
    return wide_resnet(images, depth=28, width=10)

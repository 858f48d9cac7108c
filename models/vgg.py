"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015, configuration D), in its CIFAR form."""

from typing import cast

import torch
from torch import Tensor, nn

from bench.models.images import Classifier, Images
from bench.models.inference.folding import fold_sequence
from bench.models.weights.architecture_renames import vgg_key
from bench.registry import model

# Channels of each 3×3 convolution; 0 is a 2×2 max pooling.
CONFIGURATION_D = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class VGGBody(nn.Module):
    """Normalised images (N, channels, H, W) to logits: 13 convolutions with BN, then one linear layer.

    The three large linear layers of the ImageNet form are left out, as is usual for 32×32 images.
    Pooling rounds up, so that 28×28 images too end in 1×1; 32×32 ones are as ever.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for outside in CONFIGURATION_D:
            if outside:
                conv = nn.Conv2d(channels, outside, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, conv.bias))
                layers += [conv, nn.BatchNorm2d(outside), nn.ReLU()]
                channels = outside
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        return cast(Tensor, self.classifier(x.mean((2, 3))))

    def fold(self) -> None:
        fold_sequence(self.features)


@model("vgg16", rename=vgg_key)
def vgg16(images: Images) -> nn.Module:
    """VGG-16 with batch normalisation, CIFAR form, 14.7 M parameters."""
    return Classifier(images, VGGBody(images.shape[0], images.classes))

"""Monotone DEQs for tests: with running statistics and biases that are not the initial ones."""

from typing import Any

import torch
from torch import nn

from bench.models.images import Images
from bench.models.mondeq import MonDEQ
from bench.registry import model
from tests.parts import statistics


def make_mondeq(images: Images, seed: int = 0, **options: Any) -> MonDEQ:
    """In eval mode."""
    torch.manual_seed(seed)
    net: MonDEQ = model["ibp-mondeq"].target(images, **model["ibp-mondeq"].resolve(options))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            mean, variance = statistics(module)
            mean.uniform_(-0.5, 0.5)
            variance.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    nn.init.normal_(net.body.bias, std=0.3)
    return net.eval()


def plain_images(*shape: int, classes: int = 3) -> Images:
    channels, height, width = shape
    return Images((channels, height, width), classes, (0.4,) * channels, (0.3,) * channels)

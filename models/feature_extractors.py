"""Feature extractors (Section 4.3 and 5.2): one linear layer, or ResNet-20. Registered alone, the undefended twins."""

from typing import Literal

from torch import nn

from bench.models.images import Classifier, Images
from bench.models.resnet import WIDTH, ResNetFeatures, Shortcut
from bench.models.weights.architecture_renames import resnet_key
from bench.registry import model

ExtractorName = Literal["auto", "fc", "resnet20"]


def make_extractor(images: Images, name: ExtractorName, features: int) -> nn.Module:
    """Normalised images to (N, features).

    `auto` follows the paper: one fully connected layer for one-channel images (MNIST, digits),
    ResNet-20 for colour. ResNet-20 ends in 64 features; other sizes get a linear layer behind it.
    """
    channels, height, width = images.shape
    if name == "fc" or (name == "auto" and channels == 1):
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, features))
    return _resnet20_features(channels, features)


def _resnet20_features(channels: int, features: int, shortcut: Shortcut = "pad") -> nn.Module:
    resnet = ResNetFeatures(channels, 20, shortcut)
    return resnet if features == WIDTH else nn.Sequential(resnet, nn.Linear(WIDTH, features))


def state_size(images: Images) -> int:
    """The paper's state size: 64, and 128 for CIFAR-100 (here: from 100 classes on)."""
    return 128 if images.classes >= 100 else 64


@model("fc-linear", twin_of="fc")
def fc_linear(images: Images) -> nn.Module:
    """Undefended twin of the fully connected extractor, with a linear head."""
    features = state_size(images)
    return Classifier(
        images, nn.Sequential(make_extractor(images, "fc", features), nn.Linear(features, images.classes))
    )


@model("resnet20", twin_of="resnet20", rename=resnet_key(blocks_per_stage=3))
def resnet20(images: Images, *, shortcut: Shortcut = "pad") -> nn.Module:
    """CIFAR ResNet-20, the undefended twin of the ResNet-20 extractor."""
    features = state_size(images)
    extractor = _resnet20_features(images.shape[0], features, shortcut)
    return Classifier(images, nn.Sequential(extractor, nn.Linear(features, images.classes)))

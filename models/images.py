"""What a model must know of its images, and the one place where they are normalised."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bench.models.inference.folding import entry, fold_scale


@dataclass(frozen=True)
class Images:
    """Shape and statistics of a data set's images.

    Attributes:
        shape: (channels, height, width).
        classes: number of classes.
        mean, std: per channel, of pixels in [0, 1], over the training set.
    """

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Normalize(nn.Module):
    """(x − mean) / std per channel: a layer of the model, so that ε is always in pixel units."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(images.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(images.std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.get_buffer("mean")) / self.get_buffer("std")


class Classifier(nn.Module):
    """Images in [0, 1], (N, C, H, W), to logits (N, classes): `normalize`, then `body`."""

    def __init__(self, images: Images, body: nn.Module) -> None:
        super().__init__()
        self.normalize: nn.Module = Normalize(images)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(self.normalize(x)))

    def fold(self) -> None:
        """Put the normalisation into the first layer, where that is a linear one (a convolution pads behind it).

        One of another class, which may do more than normalise, stays: rounding, say, cannot be seen on clean images.
        """
        first = entry(self.body)
        if first is None or type(self.normalize) is not Normalize:
            return
        mean, std = self.normalize.get_buffer("mean").flatten(), self.normalize.get_buffer("std").flatten()
        pixels = first.in_features // len(std)
        fold_scale(first, (1 / std).repeat_interleave(pixels), (-mean / std).repeat_interleave(pixels))
        self.normalize = nn.Identity()

    def diagnostics(self, x: Tensor) -> dict[str, Tensor]:
        """Per-example figures (N,) of the body, such as the solver's residual; empty if it has none."""
        inner = getattr(self.body, "diagnostics", None)
        return cast(dict[str, Tensor], inner(self.normalize(x))) if inner else {}

    def views(self) -> dict[str, nn.Module]:
        """The body's other ways from images to logits, by name, for attacks; empty if it has none."""
        inner = getattr(self.body, "views", None)
        return {name: nn.Sequential(self.normalize, view) for name, view in inner().items()} if inner else {}

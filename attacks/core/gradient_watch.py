"""What gradients an attack met, image by image, whoever took them and in whatever order.

A gradient that is not finite, or that is 0 everywhere, makes no step: sign(NaN) and sign(0) are 0, and an image that
was never attacked counts as robust. So both are counted where every attack's gradients end, at the model's input.
"""

import torch
from torch import Tensor

# Of an image: no gradient was taken there (or none was written down); all were 0; one was neither; one was not finite.
NONE, ZERO, FINE, NOT_FINITE = -1, 0, 1, 2

_NEAR = 1 + 1e-4  # share of the radius within which an image is taken for an iterate of another


class Watch:
    """Collects the gradients of one batch after the other.

    Attributes:
        met: per image the largest of the codes above, int8 (N,).
    """

    def __init__(self) -> None:
        self.met = torch.zeros(0, dtype=torch.int8)
        self._clean = torch.zeros(0, 1)
        self._radius = 0.0

    @property
    def looks(self) -> bool:
        """Whether gradients are matched to images."""
        return len(self._clean) > 0

    def begin(self, images: Tensor, radius: float, met: Tensor | None = None) -> None:
        """Start with a batch of clean images, (N, C, H, W), and their radius; `met`: what is known of it already."""
        self._clean, self._radius = images.flatten(1), radius
        nothing = torch.full((len(images),), NONE, dtype=torch.int8, device=images.device)
        self.met = nothing if met is None else met.to(nothing)

    @torch.no_grad()
    def saw(self, points: Tensor, gradient: Tensor) -> None:
        """Take in the gradients at some points, (M, C, H, W); each counts for the clean image nearest to it.

        Images that have shown a gradient already are not looked for again, so that an honest model costs one
        comparison of its first points and of each later gradient with 0.
        """
        codes = codes_of(peaks(gradient))
        rows = points.flatten(1)
        odd = codes != FINE
        if bool(odd.any()) and rows.shape[1] == self._clean.shape[1]:
            nearest = _distance(rows[odd], self._clean).argmin(1)
            self.met.scatter_reduce_(0, nearest, codes[odd], "amax")
        waiting = (self.met < FINE).nonzero().flatten()
        if len(waiting) and rows.shape[1] == self._clean.shape[1]:
            near = _distance(self._clean[waiting], rows[~odd]) <= _NEAR * self._radius + 1e-6
            self.met[waiting[near.any(1)]] = FINE


def peaks(gradient: Tensor) -> Tensor:
    """The largest absolute entry per example, (N,); NaN where there is one."""
    return torch.linalg.vector_norm(gradient.flatten(1), torch.inf, dim=1)


def codes_of(peak: Tensor) -> Tensor:
    """From largest entries (−1: no gradient) to codes, int8."""
    fine = torch.where(peak < 0, NONE, torch.where(peak == 0, ZERO, FINE))
    return torch.where(peak.isfinite(), fine, NOT_FINITE).to(torch.int8)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖∞, (len(a), len(b))."""
    return torch.cdist(a, b, p=torch.inf)

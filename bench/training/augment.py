"""Augmentation of Section 5.1: random crop after padding by 4, and horizontal flip, for a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4


def crop_and_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of x, (N, C, H, W), shifted by up to 4 pixels (zeros come in) and flipped half of the time."""
    n, _, height, width = x.shape
    padded = functional.pad(x, (PADDING,) * 4)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, n, 1), generator=generator)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(flip, torch.arange(width).flip(0), torch.arange(width))
    image = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

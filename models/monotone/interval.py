"""Interval bound propagation through feed-forward layers, and the margin it proves.

In training the bounds are plain and differentiable. For a certificate they run in float64 and every layer
widens them by `slack` times what it summed, which covers its rounding, and that of the model's own forward.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Affine = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Bounds(NamedTuple):
    """lower ≤ value ≤ upper for every image of a ball, (N, …), beside the value at its clean centre.

    Batch normalisation in training takes its statistics from `nominal`; elsewhere it may be None.
    """

    lower: Tensor
    upper: Tensor
    nominal: Tensor | None = None

    def map(self, monotone: Callable[[Tensor], Tensor]) -> "Bounds":
        """Through a map that is non-decreasing in every entry."""
        nominal = None if self.nominal is None else monotone(self.nominal)
        return Bounds(monotone(self.lower), monotone(self.upper), nominal)

    def widened(self, by: Tensor) -> "Bounds":
        return Bounds(self.lower - by, self.upper + by, self.nominal)

    def magnitude(self) -> Tensor:
        """The largest absolute value within the bounds."""
        return torch.maximum(self.lower.abs(), self.upper.abs())


def propagate(layer: nn.Module, bounds: Bounds, slack: float = 0.0) -> Bounds:
    """Bounds of a layer's output.

    Args:
        layer: Sequential, Linear, Conv2d, BatchNorm, AvgPool2d, ReLU or Flatten; others raise TypeError.
        bounds: of its input.
        slack: relative size of a rounding error; 0 in training.
    """
    if isinstance(layer, nn.Sequential):
        for part in layer:
            bounds = propagate(part, bounds, slack)
        return bounds
    if isinstance(layer, nn.Linear):
        return _affine(functional.linear, layer.weight, layer.bias, bounds, slack)
    if isinstance(layer, nn.Conv2d):

        def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return functional.conv2d(x, weight, bias, layer.stride, layer.padding)

        return _affine(convolve, layer.weight, layer.bias, bounds, slack)
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return _batch_norm(layer, bounds, slack)
    if isinstance(layer, nn.ReLU | nn.Flatten):
        return bounds.map(layer)
    if isinstance(layer, nn.AvgPool2d):
        pooled = bounds.map(layer)
        return pooled.widened(rounding(_cells(layer), slack) * layer(bounds.magnitude())) if slack else pooled
    raise TypeError(f"no interval bounds for a layer of type {type(layer).__name__}")


def worst_margins(head: nn.Linear, bounds: Bounds, y: Tensor, slack: float = 0.0) -> Tensor:
    """Lower bounds of z_y − z_j over the ball, (N, classes); 0 for j = y.

    The last layer is elided into the margin: one affine map per label, so that the features' bounds are
    used once, with the difference of two rows of weights, and not once per logit.

    Args:
        head: the last layer.
        bounds: of its input, (N, features).
        y: labels, (N,).
    """
    difference = head.weight[y][:, None] - head.weight
    centre, radius = (bounds.upper + bounds.lower) / 2, (bounds.upper - bounds.lower) / 2
    margins = (difference @ centre[:, :, None])[:, :, 0] - (difference.abs() @ radius[:, :, None])[:, :, 0]
    margins = margins + head.bias[y][:, None] - head.bias
    if slack:
        margins = margins - margin_rounding(head, bounds.magnitude(), y, slack)
        margins = margins.scatter(1, y[:, None], 0.0)
    return margins


def margin_rounding(head: nn.Linear, magnitude: Tensor, y: Tensor, slack: float) -> Tensor:
    """What rounding of the logits may add to or take from z_y − z_j, (N, classes), from |features| at most.

    Each logit is rounded on its own, so magnitudes add up and do not cancel.
    """
    each = functional.linear(magnitude, head.weight.abs(), head.bias.abs())
    return rounding(head.in_features, slack) * (each.gather(1, y[:, None]) + each)


def rounding(terms: int, slack: float) -> float:
    """Bound of the relative error of a sum of `terms` products, in any order, with room for the bounds' own."""
    return 2 * (terms + 4) * slack


def _cells(pool: nn.AvgPool2d) -> int:
    return int(pool.kernel_size) ** 2 if isinstance(pool.kernel_size, int) else math.prod(pool.kernel_size)


def _affine(apply: Affine, weight: Tensor, bias: Tensor | None, bounds: Bounds, slack: float) -> Bounds:
    centre, radius = (bounds.upper + bounds.lower) / 2, (bounds.upper - bounds.lower) / 2
    gamma = rounding(weight[0].numel(), slack)
    if slack:
        radius = radius + gamma * (centre.abs() + radius)
    centre = apply(centre, weight, bias)
    radius = apply(radius, weight.abs(), gamma * bias.abs() if slack and bias is not None else None)
    nominal = None if bounds.nominal is None else apply(bounds.nominal, weight, bias)
    return Bounds(centre - radius, centre + radius, nominal)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, bounds: Bounds, slack: float) -> Bounds:
    nominal = bounds.nominal
    if layer.training:
        if nominal is None:
            raise ValueError("batch normalisation in training takes its statistics from the clean values")
        axes = [axis for axis in range(nominal.ndim) if axis != 1]
        mean, variance = nominal.mean(axes), nominal.var(axes, correction=0)
    else:
        assert layer.running_mean is not None and layer.running_var is not None
        mean, variance = layer.running_mean, layer.running_var
    shape = (-1,) + (1,) * (bounds.lower.ndim - 2)
    scale = (layer.weight * (variance + layer.eps).rsqrt()).view(shape)
    mean, bias = mean.view(shape), layer.bias.view(shape)
    centre = ((bounds.upper + bounds.lower) / 2 - mean) * scale + bias
    radius = (bounds.upper - bounds.lower) / 2 * scale.abs()
    if slack:
        summed = (bounds.magnitude() + mean.abs()) * scale.abs() + bias.abs()
        radius = radius + rounding(4, slack) * summed
    return Bounds(centre - radius, centre + radius, None if nominal is None else layer(nominal))

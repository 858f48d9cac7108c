"""The features a classifier decides on: what its last linear layer is given."""

import inspect

import torch
from torch import Tensor, nn


def penultimate(model: nn.Module, x: Tensor) -> Tensor:
    """Features of images in [0, 1], (N, C, H, W), as (N, n), differentiable in x.

    A model's own method `features(x)` if it has one, else the input of its last linear layer.

    Raises:
        ValueError: it has neither.
    """
    own = getattr(model, "features", None)
    if inspect.ismethod(own):
        return torch.flatten(own(x), 1)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no linear layer and no method features(x)")
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(x)
    finally:
        hook.remove()
    return torch.flatten(seen[-1], 1)

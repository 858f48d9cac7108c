"""The same function in fewer operations, for searches: what is affine in evaluation joins a linear layer beside it.

A module that can be folded has a method `fold`, which changes the module itself; `folded` calls it on a copy.
"""

import copy
from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

PROBE = 8  # images that the folded model has to agree on
AGREE = 1e-3  # largest difference of logits, relative to the largest logit, that is taken for rounding


@runtime_checkable
class Folds(Protocol):
    """A module that knows how to fold itself, in eval mode."""

    def fold(self) -> None: ...


def fold_pairs(module: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Fold each batch normalisation into the convolution or linear layer whose output it alone receives.

    Args:
        module: changed in place; in eval mode.
        pairs: names of the two in `module`. The normalisation becomes the identity.
    """
    for layer, norm in pairs:
        before, after = getattr(module, layer), getattr(module, norm)
        fuse = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
        setattr(module, layer, fuse(before, after))
        setattr(module, norm, nn.Identity())


def fold_sequence(layers: nn.Sequential) -> None:
    """`fold_pairs` for every convolution or linear layer that is followed by a batch normalisation."""
    kinds = (nn.Conv2d, nn.Linear), (nn.BatchNorm1d, nn.BatchNorm2d)
    neighbours = pairwise(list(layers.named_children()))
    fold_pairs(layers, [(a, b) for (a, x), (b, y) in neighbours if isinstance(x, kinds[0]) and isinstance(y, kinds[1])])


def fold_scale(linear: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Make linear(x) what linear(scale · x + shift) was; both (in_features,)."""
    weight = linear.weight.detach()
    bias = torch.zeros_like(weight[:, 0]) if linear.bias is None else linear.bias.detach()
    linear.bias = nn.Parameter(bias + weight @ shift)
    linear.weight = nn.Parameter(weight * scale)


def entry(body: nn.Module) -> nn.Linear | None:
    """The linear layer that reads a body's flattened input first, if there is one and nothing is before it."""
    while not (isinstance(body, nn.Sequential) and len(body) > 1 and isinstance(body[0], nn.Flatten)):
        inner = body[0] if isinstance(body, nn.Sequential) and len(body) else getattr(body, "extractor", None)
        if not isinstance(inner, nn.Module):
            return None
        body = inner
    return body[1] if isinstance(body[1], nn.Linear) else None


def folded(model: nn.Module) -> nn.Module:
    """A folded copy in eval mode, without parameter gradients; the model itself where nothing in it folds."""
    if not any(isinstance(module, Folds) for module in model.modules()):
        return model
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, Folds):
            module.fold()
    return model.requires_grad_(False)


@torch.no_grad()
def folded_for(model: nn.Module, x: Tensor) -> nn.Module:
    """`folded`, where its logits for some of x, (N, …), are the model's but for rounding; else the model itself.

    Also the model itself where it cannot be copied or folded: its layers may hold locks, be parametrised or reshaped,
    or have a `fold` of another meaning.
    """
    x = x[:PROBE]
    try:
        found = folded(model)
        other = None if found is model else found(x.clone())
    except Exception:
        return model
    if other is None:
        return model
    return found if agree(model(x.clone()), other) else model


def agree(own: Tensor, other: Tensor) -> bool:
    """Whether a model's logits and those of its other form are the same but for rounding."""
    return own.shape == other.shape and bool((own - other).abs().max() <= AGREE * own.abs().max())


def inert(module: nn.Module) -> bool:
    """Whether it only computes: none of its parameters is to be differentiated, and its modules are untouched."""
    return not any(p.requires_grad for p in module.parameters()) and untouched(module.modules())


def untouched(modules: Iterable[nn.Module]) -> bool:
    """Whether each does what its class does: no hooks, no `forward` of its own."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any("forward" in vars(m) or any(getattr(m, each) for each in hooks) for m in modules)

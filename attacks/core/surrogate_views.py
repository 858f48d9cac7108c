"""Surrogate gradients: a model's views by name, where it has them."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from bench.attacks.core.contract import ContractError

GuideName = Literal["own", "unrolled", "intermediate", "simultaneous", "no-projection", "detached"]


def guide_of(model: nn.Module, name: GuideName) -> nn.Module | None:
    """The view called `name`, None for the model's own gradient. Raises ContractError where there is none."""
    if name == "own":
        return None
    views = find_views(model)
    if name not in views:
        raise ContractError(f"the model offers no view '{name}' to search along; it has {', '.join(views) or 'none'}")
    return views[name]


def find_views(model: nn.Module) -> Mapping[str, nn.Module]:
    """What else a model lets its gradient be taken from, by name; empty where it says nothing.

    Raises ContractError where `views()` is not a mapping of names to modules.
    """
    offered = getattr(model, "views", None)
    found = offered() if callable(offered) else {}
    if not isinstance(found, Mapping) or not all(isinstance(view, nn.Module) for view in found.values()):
        raise ContractError(f"the model's views() must return modules by name, got {type(found).__name__}")
    return found

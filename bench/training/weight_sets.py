"""The sets of weights that a file from elsewhere holds: raw ones and their average, say. None is chosen silently."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError

State = dict[str, Tensor]

TOP = "."  # how the top level of a file is named
_USUAL = ("state_dict", "model_state_dict", "model", "net")  # where a set lies, the likeliest first
_NO_WEIGHTS = ("optim", "sched", "scaler")  # parts of names under which a training keeps other tensors
_DEPTH = 6  # of nests; a pickle may hold itself


@dataclass(frozen=True)
class WeightSets:
    """Every set of tensors in a file, by the keys that lead to it, joined by dots; `.` is the file's top level.

    Attributes:
        named: tensors by name.
        unnamed: lists of tensors, as some moving averages are kept.
    """

    named: dict[str, State] = field(default_factory=dict)
    unnamed: dict[str, list[Tensor]] = field(default_factory=dict)


def weight_sets(content: Any) -> WeightSets:
    """All sets in what a file holds."""
    found = WeightSets()
    _collect(content, (), found)
    return found


def _collect(content: Any, keys: tuple[str, ...], found: WeightSets) -> None:
    where = ".".join(keys) or TOP
    if isinstance(content, list | tuple) and content and all(isinstance(value, Tensor) for value in content):
        found.unnamed[where] = list(content)
    if not isinstance(content, Mapping) or len(keys) > _DEPTH:
        return
    if state := {str(key): value for key, value in content.items() if isinstance(value, Tensor)}:
        found.named[where] = state
    for key, value in content.items():
        # An optimiser's state is numbered, or lies under a name that says so.
        if isinstance(key, str) and not any(part in key.lower() for part in _NO_WEIGHTS):
            _collect(value, (*keys, key), found)


def choose(path: Path, sets: WeightSets, key: str, model: nn.Module, ours: Callable[[State], State]) -> State:
    """The one set that is the model's, with our names.

    Args:
        key: the user's choice, `weights` in [models.NAME]; empty where there is none.
        ours: gives a set the model's names, as far as they can be told.

    Raises:
        BenchError: several sets have weights of the model and `key` does not say which, or it names none of them.
    """
    renamed = {name: ours(state) for name, state in sets.named.items()}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    fitting = _distinct(
        {n: s for n, s in renamed.items() if any(name in shapes and s[name].shape == shapes[name] for name in s)}
    )
    nameless = [n for n, tensors in sets.unnamed.items() if all(t.shape in shapes.values() for t in tensors)]
    if key:
        below = [name for name in renamed if name == key] or [name for name in fitting if name.startswith(f"{key}.")]
        if len(below) != 1:
            raise BenchError(
                f"checkpoint {path}: weights = '{key}' names none of its sets of weights, or several; there is "
                f"{', '.join(fitting or renamed)}."
            )
        return renamed[below[0]]
    if len(fitting) + len(nameless) > 1:
        lists = f" ({', '.join(nameless)}: a list without names, which cannot be loaded)" if nameless else ""
        raise BenchError(
            f"checkpoint {path} holds several sets of weights: {', '.join([*fitting, *nameless])}{lists}; say which is "
            f'meant by weights = "{next(iter(fitting), "")}" in bench.toml [models.NAME].'
        )
    if nameless:
        raise BenchError(f"checkpoint {path}: {nameless[0]} is a list of weights without names; save a state_dict.")
    return renamed[next(iter(fitting), _likeliest(renamed))]


def _distinct(states: dict[str, State]) -> dict[str, State]:
    """Without those that hold the same values as one before: a file may name one set twice."""
    kept: dict[str, State] = {}
    for name, state in states.items():
        if not any(_same(state, other) for other in kept.values()):
            kept[name] = state
    return kept


def _same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _likeliest(names: Mapping[str, object]) -> str:
    """Where none fits: the one that the error is about."""
    usual = [name for key in _USUAL for name in names if name.split(".")[0] == key]
    return usual[0] if usual else max(names, key=lambda name: name == TOP)

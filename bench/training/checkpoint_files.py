"""Weights as safetensors with a card beside them; the state for resuming. Nothing is ever unpickled."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bench.errors import BenchError, first_line
from bench.system.files import read_json, write_atomically

# What is read of a card, wherever one is read.
_CARD: dict[str, tuple[type, ...]] = {
    "label": (str,),
    "dataset": (str,),
    "seed": (int,),
    "settings": (dict,),
    "weights": (str,),
    "clean_accuracy": (int, float),
    "clean_interval": (list,),
    "clean_n": (int,),
}


def weights_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order or device.

    Raises:
        BenchError: something is no plain tensor, or a lazy layer has no weights yet.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if is_lazy(state[name]):
            raise BenchError(f"its '{name}' is of a lazy layer that has met no image; run a forward in its factory.")
        if not isinstance(state[name], Tensor) or state[name].is_quantized:
            raise BenchError(
                f"its '{name}' is no plain tensor (a quantised layer? Such a layer has no gradient either); "
                "evaluate the network that it was made from."
            )
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the model's state; returns its hash."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda part: save_file(state, part))
    return weights_hash(state)


def load_weights(path: Path, model: nn.Module) -> str:
    """Fill the model; returns the weights' hash.

    Raises:
        BenchError: a truncated file, keys or shapes that do not match, or weights that differ from the card's.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BenchError(
            f"checkpoint {path} is damaged ({first_line(error)}); delete it and train again with `bench train`."
        ) from error
    fit_state(path, model, state)
    found = weights_hash(state)
    expected = read_json(card_path(path)).get("weights") if card_path(path).exists() else found
    if found != expected:
        raise BenchError(f"checkpoint {path} does not hold the weights its card names; delete both and train again.")
    return found


def fit_state(path: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """load_state_dict with an error that names the first missing and unexpected keys, or the first wrong shape."""
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        raise BenchError(
            f"checkpoint {path} does not match the architecture: {len(missing)} keys missing"
            f"{f' (first: {missing[0]})' if missing else ''}, {len(unexpected)} unexpected"
            f"{f' (first: {unexpected[0]})' if unexpected else ''}."
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise BenchError(
                f"checkpoint {path} does not match the architecture: {name} is {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[name].shape)}."
            )
    model.load_state_dict(state)


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def read_card(path: Path) -> dict[str, Any]:
    """The card of a checkpoint. Raises BenchError where it is damaged or lacks what every card has."""
    card = read_json(card_path(path))
    for name, kinds in _CARD.items():
        if not isinstance(card.get(name), kinds):
            raise BenchError(
                f"card {card_path(path)} is damaged: '{name}' is missing or of the wrong kind; "
                "delete it and its checkpoint and train again."
            )
    return card


def state_path(path: Path) -> Path:
    return path.with_suffix(".state.pt")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """The state for resuming: tensors, numbers and strings."""
    write_atomically(state_path(path), lambda part: torch.save(state, part))


def load_state(path: Path) -> dict[str, Any] | None:
    """The saved state, None where there is none or it cannot be read (training then starts anew)."""
    try:
        state = torch.load(state_path(path), weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged zip raises many kinds
        raise BenchError(
            f"training state {state_path(path)} is damaged ({first_line(error)}); delete it to start anew."
        ) from error
    return state if isinstance(state, dict) else None

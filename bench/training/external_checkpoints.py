"""Checkpoints trained elsewhere: read without running their code, under our names, behind their own normalisation."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bench.errors import BenchError
from bench.models.images import Images
from bench.models.weights.read import read_tensors
from bench.registry import ModelEntry
from bench.settings.config import UserModel
from bench.training.checkpoint_files import fit_state, weights_hash
from bench.training.weight_sets import State, WeightSets, choose, weight_sets

SUFFIXES = (".pth", ".th", ".pt", ".safetensors")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")


@dataclass(frozen=True)
class Foreign:
    """A checkpoint of [models.NAME] in bench.toml.

    Attributes:
        path: the file.
        mean, std: per channel, of pixels in [0, 1]: what its network was trained behind.
        weights: the weights' hash, where it is known already; filling a model then checks it.
        key: which of several sets of weights in the file is meant, by the keys that lead to it, joined by dots.
    """

    path: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str = ""
    key: str = ""

    def images(self, images: Images) -> Images:
        """The data set's images with this checkpoint's normalisation."""
        return replace(images, mean=self.mean, std=self.std)

    def identity(self) -> dict[str, Any]:
        """What weights made from this model depend on."""
        return {
            "file": hashlib.sha256(Path(self.path).read_bytes()).hexdigest(),
            "mean": list(self.mean),
            "std": list(self.std),
            **({"weights": self.key} if self.key else {}),
        }


class WatchedImages(Images):
    """Images that know whether their mean or std was read.

    Attributes:
        read: whether it was; what has not been read can have been applied nowhere.
    """

    read = False

    @classmethod
    def of(cls, images: Images) -> "WatchedImages":
        return cls(images.shape, images.classes, images.mean, images.std)

    def __getattribute__(self, name: str) -> Any:
        if name in ("mean", "std"):
            object.__setattr__(self, "read", True)  # frozen, as Images are
        return super().__getattribute__(name)


def declared_checkpoint(name: str, declared: UserModel | None, images: Images) -> Foreign | None:
    """The checkpoint of [models.NAME], None where it has none.

    Raises:
        BenchError: no such file, another kind of file, or a normalisation that is missing or does not fit.
    """
    if declared is None:
        return None
    if declared.checkpoint is None and declared.mean is None and declared.std is None and declared.weights is None:
        return None
    where = f"bench.toml [models.{name}]"
    path, mean, std = declared.checkpoint, declared.mean, declared.std
    if path is None or mean is None or std is None:
        raise BenchError(f"{where}: checkpoint, mean and std (and weights) go together; they are that model's own.")
    if len(mean) != images.shape[0] or len(std) != len(mean) or min(std) <= 0:
        raise BenchError(f"{where}: mean and std need {images.shape[0]} value(s) each, std above 0.")
    if path.suffix not in SUFFIXES:
        raise BenchError(f"{where}: {path} is none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise BenchError(f"{where}: there is no file {path}.")
    return Foreign(str(path), tuple(mean), tuple(std), key=declared.weights or "")


def fill_foreign(model: nn.Module, foreign: Foreign, entry: ModelEntry) -> str:
    """Fill a model, built for `foreign.images(…)`, with the checkpoint; returns the weights' hash.

    Raises:
        BenchError: a file that is damaged, holds more than tensors or does not match, or one that
            has changed since its hash was taken.
    """
    path = Path(foreign.path)
    sets = read_sets(path)
    chosen = choose(path, sets, foreign.key, model, lambda state: _in_our_names(_unwrapped(state), model, entry))
    fit_state(path, model, chosen)
    found = weights_hash(model.state_dict())
    if foreign.weights and found != foreign.weights:
        raise BenchError(f"checkpoint {path} was changed while it was in use; run again.")
    return found


def read_sets(path: Path) -> WeightSets:
    """The sets of weights in a file, wherever in it they are nested.

    Raises:
        BenchError: a damaged file, one that holds code, or one without a state_dict.
    """
    sets = weight_sets(read_tensors(path))
    if not sets.named and not sets.unnamed:
        raise BenchError(f"checkpoint {path} holds no state_dict, neither bare nor nested.")
    return sets


def _unwrapped(state: State) -> State:
    """The state without wrappers' prefixes."""
    while prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _in_our_names(state: State, model: nn.Module, entry: ModelEntry) -> State:
    """The state with the keys of our model, as far as they can be told, behind the model's own normalisation."""
    wanted = model.state_dict()
    rename = entry.traits.rename or (lambda key: key if key in wanted else f"body.{key}")
    # What was taken for a wrapper may be a part of the network itself.
    places = [inside + prefix for inside in ("", "body.") for prefix in ("", *_WRAPPERS)]
    place = next((prefix for prefix in places if all(prefix + key in wanted for key in state)), None)
    if place is not None:
        state = {place + key: value for key, value in state.items()}
    elif not any(key in wanted for key in state):
        state = {(rename(key) if rename(key) in wanted else key): value for key, value in state.items()}
    ours = {key: value for key, value in wanted.items() if key.startswith("normalize.")}
    # Counts of batches seen decide nothing in evaluation, and files from before 2018 have none.
    counts = {key: value for key, value in wanted.items() if key.endswith(".num_batches_tracked")}
    return {**counts, **state, **ours}

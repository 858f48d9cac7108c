"""Checkpoints trained elsewhere: read without running their code, under our names, behind their own normalisation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.images import Images
from bench.models.weights.read import read_tensors
from bench.registry import ModelEntry
from bench.settings.config import UserModel
from bench.training.checkpoint_files import fit_state, weights_hash

SUFFIXES = (".pth", ".th", ".pt", ".safetensors")
_NESTS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")


@dataclass(frozen=True)
class Foreign:
    """A checkpoint of [models.NAME] in bench.toml.

    Attributes:
        path: the file.
        mean, std: per channel, of pixels in [0, 1]: what its network was trained behind.
        weights: the weights' hash, where it is known already; filling a model then checks it.
    """

    path: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str = ""

    def images(self, images: Images) -> Images:
        """The data set's images with this checkpoint's normalisation."""
        return replace(images, mean=self.mean, std=self.std)

    def identity(self) -> dict[str, Any]:
        """What weights made from this model depend on."""
        return {
            "file": hashlib.sha256(Path(self.path).read_bytes()).hexdigest(),
            "mean": list(self.mean),
            "std": list(self.std),
        }


def declared_checkpoint(name: str, declared: UserModel | None, images: Images) -> Foreign | None:
    """The checkpoint of [models.NAME], None where it has none.

    Raises:
        BenchError: no such file, another kind of file, or a normalisation that is missing or does not fit.
    """
    if declared is None or (declared.checkpoint is None and declared.mean is None and declared.std is None):
        return None
    where = f"bench.toml [models.{name}]"
    path, mean, std = declared.checkpoint, declared.mean, declared.std
    if path is None or mean is None or std is None:
        raise BenchError(f"{where}: checkpoint, mean and std go together; mean and std are that model's own.")
    if len(mean) != images.shape[0] or len(std) != len(mean) or min(std) <= 0:
        raise BenchError(f"{where}: mean and std need {images.shape[0]} value(s) each, std above 0.")
    if path.suffix not in SUFFIXES:
        raise BenchError(f"{where}: {path} is none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise BenchError(f"{where}: there is no file {path}.")
    return Foreign(str(path), tuple(mean), tuple(std))


def fill_foreign(model: nn.Module, foreign: Foreign, entry: ModelEntry) -> str:
    """Fill a model, built for `foreign.images(…)`, with the checkpoint; returns the weights' hash.

    Raises:
        BenchError: a file that is damaged, holds more than tensors or does not match, or one that
            has changed since its hash was taken.
    """
    path = Path(foreign.path)
    fit_state(path, model, _in_our_names(read_state(path), model, entry))
    found = weights_hash(model.state_dict())
    if foreign.weights and found != foreign.weights:
        raise BenchError(f"checkpoint {path} was changed while it was in use; run again.")
    return found


def read_state(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file, wherever in it it is nested, without wrappers' prefixes.

    Raises:
        BenchError: a damaged file, one that holds code, or one without a state_dict.
    """
    content = read_tensors(path)
    while isinstance(content, Mapping) and any(isinstance(content.get(key), Mapping) for key in _NESTS):
        content = next(content[key] for key in _NESTS if isinstance(content.get(key), Mapping))
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise BenchError(f"checkpoint {path} holds no state_dict, neither bare nor under {', '.join(_NESTS)}.")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _in_our_names(state: dict[str, Tensor], model: nn.Module, entry: ModelEntry) -> dict[str, Tensor]:
    """The state with the keys of our model, as far as they can be told, behind the model's own normalisation."""
    wanted = model.state_dict()
    rename = entry.traits.rename or (lambda key: key if key in wanted else f"body.{key}")
    if not any(key in wanted for key in state):
        state = {(rename(key) if rename(key) in wanted else key): value for key, value in state.items()}
    ours = {key: value for key, value in wanted.items() if key.startswith("normalize.")}
    # Counts of batches seen decide nothing in evaluation, and files from before 2018 have none.
    counts = {key: value for key, value in wanted.items() if key.endswith(".num_batches_tracked")}
    return {**counts, **state, **ours}

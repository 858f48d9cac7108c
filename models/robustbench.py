"""RobustBench's model zoo (Croce et al. 2021) by its own names: `robustbench:Carmon2019Unlabeled[threat=L2]`.

Architecture, normalisation and weights are theirs; nothing is trained. Weights lie where RobustBench puts them,
`<model_dir>/<data set>/<threat>/<name>.pt`, and are downloaded from where it has them if they are not there.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from bench.errors import BenchError, first_line, unknown
from bench.models.images import Images
from bench.models.weights.read import read_tensors
from bench.models.weights.robustbench_package import load_zoo
from bench.registry import ModelEntry, model
from bench.traits import ModelTraits

Threat = Literal["Linf", "L2", "corruptions"]

# (data set, threat model) to names to how RobustBench makes and finds them.
Tables = dict[tuple[str, str], Mapping[str, Any]]


@model.namespace("robustbench")
def find(name: str) -> ModelEntry:
    """The registry entry of a model of the zoo. Raises BenchError for an unknown name, or without the package."""
    tables = _tables(load_zoo()[0])
    names = {known for table in tables.values() for known in table}
    if name not in names:
        raise unknown("model of RobustBench", name, names)

    def build(images: Images, *, threat: Threat = "Linf", model_dir: str = "downloads/robustbench") -> nn.Module:
        """RobustBench's model of this name for CIFAR-10 or CIFAR-100, whichever the images' shape and classes fit."""
        return _build(name, _dataset(name, images), threat, Path(model_dir))

    build.__name__ = name
    return ModelEntry(
        kind="model",
        name=f"robustbench:{name}",
        target=build,
        version=f"1-robustbench-{version('robustbench')}",
        traits=ModelTraits(pretrained=True, places=("model_dir",)),
    )


def _tables(zoo: ModuleType) -> Tables:
    return {
        (dataset.value, threat.value): models
        for dataset, threats in zoo.model_dicts.items()
        if dataset.value in ("cifar10", "cifar100")
        for threat, models in threats.items()
    }


def _dataset(name: str, images: Images) -> str:
    if images.shape != (3, 32, 32) or images.classes not in (10, 100):
        shape = "×".join(map(str, images.shape))
        raise BenchError(
            f"robustbench:{name} takes 3×32×32 images of 10 or 100 classes (CIFAR); this data set has {shape} "
            f"and {images.classes} classes."
        )
    return f"cifar{images.classes}"


def _build(name: str, dataset: str, threat: str, folder: Path) -> nn.Module:
    zoo, utils = load_zoo()
    tables = _tables(zoo)
    if name not in tables.get((dataset, threat), {}):
        has = ", ".join(f"{d} threat={t}" for (d, t), table in sorted(tables.items()) if name in table)
        raise BenchError(f"RobustBench has no {name} for {dataset} and threat={threat}; it is there for {has}.")
    place = folder / dataset / threat
    ids = tables[dataset, threat][name]["gdrive_id"]
    if isinstance(ids, str):
        files = {place / f"{name}.pt": ids}
    else:  # an ensemble, or one whose weights timm keeps
        files = {place / f"{name}.pt_m{i}.pt": each for i, each in enumerate(ids or ())}  # its own spelling
    contents = [_fetch(name, path, each, utils) for path, each in files.items()]
    try:
        # RobustBench reads the files once more, by now known to hold no code, and knows every model's own keys.
        with redirect_stdout(sys.stderr):
            net = utils.load_model(name, folder, dataset, threat)
    except Exception as error:
        raise BenchError(_why_not_loaded(name, list(files), error)) from error
    if files:
        _check_filled(name, net, contents, list(files))
    return cast(nn.Module, net.eval())


def _fetch(name: str, path: Path, gdrive_id: str, utils: ModuleType) -> Any:
    """A file's content, downloaded if it is not there. Raises BenchError where there is none or it holds code."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        reason = "the download left no file"
        try:
            with redirect_stdout(sys.stderr):
                utils.download_gdrive_new(gdrive_id, path)
        except Exception as error:  # requests, gdown, OSError: all mean the same to the user
            reason = first_line(error)
        if not path.is_file():
            raise BenchError(
                f"the weights of robustbench:{name} are not there and could not be downloaded ({reason:.160}); "
                f"put Google Drive's file {gdrive_id} at {path}."
            )
    return read_tensors(path)


def _why_not_loaded(name: str, paths: Sequence[Path], error: Exception) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if paths:
        return f"RobustBench cannot load {name} from {paths[0]} ({reason}); get the file again."
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    return f"robustbench:{name} could not be loaded ({reason}); its weights are downloaded by timm, to {hub}."


def _check_filled(name: str, net: nn.Module, contents: Sequence[Any], paths: Sequence[Path]) -> None:
    """Raises BenchError for a parameter that no file holds: for some models RobustBench ignores missing keys."""
    there = {_digest(tensor) for content in contents for tensor in _inside(content)}
    constants = ("mean", "std")  # of normalisation, which some architectures set themselves
    lacking = [
        key
        for key, parameter in net.named_parameters()
        if key.rpartition(".")[2] not in constants and _digest(parameter) not in there
    ]
    if lacking:
        raise BenchError(
            f"{paths[0]} is not the checkpoint of robustbench:{name}: it lacks {len(lacking)} of its parameters "
            f"(first: {lacking[0]}); get the file again."
        )


def _inside(content: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of dictionaries."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _inside(value)


def _digest(tensor: Tensor) -> bytes:
    values = tensor.detach().cpu().float().contiguous().reshape(-1)
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + values.numpy().tobytes()).digest()

"""Images that look to a robust model like others: how the robust data set of Ilyas et al. 2019 is made and kept."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import frozen
from bench.data.arrays import content_hash
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError, first_line
from bench.models.penultimate import penultimate
from bench.system.environment import describe
from bench.system.files import write_atomically, write_json
from bench.system.progress import progress

CHUNK = 250  # images optimised together; a kill loses one chunk at most


@dataclass(frozen=True)
class Plan:
    """Which images are made: targets and starts are positions in the training set, (M,)."""

    targets: Tensor
    starts: Tensor
    steps: int
    step_size: float


def make_plan(data: Dataset, seed: int, images: int, steps: int, step_size: float) -> Plan:
    """A random choice of `images` targets (0: all), each with another image of the training set to start from."""
    n = len(data.x_train)
    if n < 2:
        raise BenchError(f"robust-dataset: data set '{data.name}' has {n} training image(s), it needs 2.")
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randperm(n, generator=generator)[: images or n]
    away = torch.randint(1, n, (len(targets),), generator=generator)
    return Plan(targets, (targets + away) % n, steps, step_size)


def match_features(model: nn.Module, start: Tensor, target: Tensor, steps: int, step_size: float) -> Tensor:
    """Images whose features match those of `target`, by descent from `start`; all (N, C, H, W) in [0, 1].

    Every step has L2 length `step_size` against the gradient of ‖g(x) − g(target)‖₂, then clamps to [0, 1].
    """
    with torch.no_grad():
        wanted = penultimate(model, target)
    x = start
    for _ in range(steps):
        x = x.detach().requires_grad_()
        distance = (penultimate(model, x) - wanted).norm(dim=1).sum()
        gradient = torch.autograd.grad(distance, x)[0]
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        x = (x.detach() - step_size * gradient / length).clamp(0, 1)
    return x.detach()


def build_robust_dataset(
    model: nn.Module, data: Dataset, plan: Plan, path: Path, provenance: dict[str, Any], device: torch.device
) -> None:
    """Write `path` (.npz: x_train, y_train, and the positions target, start) and its provenance beside it (.json).

    Chunks of 250 images are kept in a folder beside it until all are there, so a killed build goes on.
    """
    parts = path.with_suffix("")
    rows = list(torch.arange(len(plan.targets)).split(CHUNK))
    model = model.to(device).eval()
    with progress(len(rows), f"robust images of {data.name}, {CHUNK} at a time") as bar, frozen(model):
        for index, chunk in enumerate(rows):
            part = parts / f"{index:05}.npz"
            if part.exists():
                bar.skip(1)
                continue
            write_atomically(part, _writer(**_make_chunk(model, data, plan, chunk, device)))
            bar.advance()
    done = [read_columns(parts / f"{index:05}.npz") for index in range(len(rows))]
    columns = {name: np.concatenate([part[name] for part in done]) for name in done[0]}
    before, after = columns.pop("before"), columns.pop("after")
    provenance = {
        **provenance,
        "content": content_hash(columns["x_train"], columns["y_train"]),
        # ‖g(x) − g(target)‖ / ‖g(target)‖, at the start and of the images as stored, rounded to bytes.
        "median_distance": {"start": round(float(np.median(before)), 6), "end": round(float(np.median(after)), 6)},
        "device": str(device),
        "environment": describe(),
    }
    write_atomically(path, _writer(**columns))
    write_json(path.with_suffix(".json"), provenance)
    shutil.rmtree(parts)


def _make_chunk(
    model: nn.Module, data: Dataset, plan: Plan, rows: Tensor, device: torch.device
) -> dict[str, NDArray[Any]]:
    targets, starts = plan.targets[rows], plan.starts[rows]
    target, start = (as_pixels(data.x_train[index]).to(device) for index in (targets, starts))
    with parametrize.cached():
        found = match_features(model, start, target, plan.steps, plan.step_size)
        stored = (found * 255).round().to(torch.uint8)
        before, after = (_distance(model, x, target) for x in (start, as_pixels(stored)))
    columns = {
        "x_train": stored,
        "y_train": data.y_train[targets],
        "target": targets,
        "start": starts,
        "before": before,
        "after": after,
    }
    return {name: column.cpu().numpy() for name, column in columns.items()}


@torch.no_grad()
def _distance(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    wanted = penultimate(model, target)
    return (penultimate(model, x) - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)


def _writer(**columns: NDArray[Any]) -> Any:
    def write(part: Path) -> None:
        with part.open("wb") as file:  # np.savez would append .npz to the temporary name
            np.savez_compressed(file, allow_pickle=False, **columns)

    return write


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz, never unpickled. Raises BenchError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip raises many kinds
        raise BenchError(f"{path} is damaged ({first_line(error)}); delete it and run again.") from error

"""The robust data set of Ilyas et al. 2019 ("Adversarial examples are not bugs, they are features", Section 3.1).

For every training image another one is changed until a robust model sees the same features in both;
with the first one's label it makes a training set that holds only what the robust model looks at.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.data.arrays import content_hash
from bench.data.load import Dataset
from bench.errors import BenchError
from bench.registry import recipe
from bench.settings.config import Train
from bench.settings.lengths import PositiveLength
from bench.system.canonical import canonical
from bench.system.files import read_json, safe_name
from bench.system.progress import say
from bench.system.threads import threads
from bench.training.checkpoint_files import load_weights, weights_hash
from bench.training.job_identity import Job
from bench.training.loop import build_model, train, training_threads
from bench.training.recipes.robust_images import build_robust_dataset, make_plan, read_columns
from bench.training.recipes.standard import TrainingStep

VERSION = 1  # raise it whenever the images change
PUBLISHED_STEPS = 1000


def prepare(job: Job, data: Dataset, folder: Path, device: torch.device, config: Train) -> tuple[Dataset, Any]:
    """The data with the robust training set in place of its own, and the set's provenance for the card.

    Trains the source first where it has no checkpoint, and builds the set where there is none.
    """
    options, source = job.recipe_options, job.sources["source"]
    net, weights = _source(source, data, folder, device, config)
    plan = make_plan(data, job.seed, options["images"], options["steps"], options["step_size"])
    identity = {
        "version": VERSION,
        "source": source.label,
        "source_weights": weights,
        "dataset": data.name,
        "train_data": data.train_hash,
        "images": len(plan.targets),
        "steps": plan.steps,
        "step_size": plan.step_size,
        "seed": job.seed,
    }
    digest = hashlib.sha256(canonical(identity).encode()).hexdigest()
    path = folder / safe_name(data.name) / f"robust-{digest[:10]}.npz"
    reduced = reduction(len(plan.targets), len(data.x_train), plan.steps)
    with FileLock(path.with_suffix(".lock")):
        if not path.with_suffix(".json").exists():
            say(f"building {path}" + (f" (reduced: {reduced})" if reduced else ""))
            with threads(config.threads or training_threads(net)):
                build_robust_dataset(net, data, plan, path, {**identity, "reduced": reduced}, device)
    columns, provenance = read_columns(path), read_json(path.with_suffix(".json"))
    if content_hash(columns["x_train"], columns["y_train"]) != provenance.get("content"):
        raise BenchError(f"robust data set {path} does not hold what its .json says; delete both and run again.")
    x, y = torch.from_numpy(columns["x_train"]), torch.from_numpy(columns["y_train"])
    return replace(data, x_train=x, y_train=y), {"file": path.name, **provenance}


def reduction(images: int, of_images: int, steps: int) -> str:
    """What makes a set smaller than the published one, empty where nothing does."""
    parts = []
    if images < of_images:
        parts.append(f"{images} of {of_images} images")
    if steps < PUBLISHED_STEPS:
        parts.append(f"{steps} of {PUBLISHED_STEPS} steps")
    return ", ".join(parts)


@recipe("robust-dataset", prepare=prepare, sources=("source",))
def robust_dataset(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: TrainingStep,
    *,
    source: str = "resnet20+pgd-at",
    images: Annotated[int, Field(ge=0)] = 0,
    steps: Annotated[int, Field(ge=0)] = PUBLISHED_STEPS,
    step_size: PositiveLength = 0.1,
) -> Tensor:
    """Cross-entropy on the robust data set of Ilyas et al. 2019, built from a robust model.

    Args:
        source: the robust model, trained on the same data with the same seed; the paper's was trained in L2.
        images: a random choice of this many training images, 0: all. Fewer than all is marked as reduced.
        steps: gradient steps for every image; fewer than the published 1,000 are marked as reduced.
        step_size: L2 length of a step, in units of the pixel range.
    """
    return functional.cross_entropy(model(x).float(), y)


def _source(source: Job, data: Dataset, folder: Path, device: torch.device, config: Train) -> tuple[nn.Module, str]:
    net = build_model(source, data)
    if source.pretrained:
        return net, weights_hash(net.state_dict())
    return net, load_weights(train(source, data, folder, device, config), net)

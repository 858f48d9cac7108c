"""From a trained job to where a worker finds its weights, and what of them keys a cell."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from bench.data.load import Dataset
from bench.errors import BenchError
from bench.store.cells import Source
from bench.store.identity import ModelIdentity
from bench.training.checkpoint_files import read_card, weights_hash
from bench.training.job_identity import Job
from bench.training.loop import build_model


@dataclass(frozen=True)
class ModelSource:
    """Where a worker finds a trained model, and what of it keys a cell."""

    source: Source
    identity: ModelIdentity


def model_source(label: str, job: Job, data: Dataset, checkpoints: Path, net: nn.Module | None = None) -> ModelSource:
    """The source of a job whose weights are there.

    Args:
        net: the model as it is built, for a caller that has it; weights that come with a model are read from it.

    Raises:
        BenchError: the card is missing or damaged.
    """
    source, weights = _source(label, job, data, checkpoints, net)
    images = job.foreign.images(data.images) if job.foreign else data.images
    identity = ModelIdentity(
        architecture=job.architecture.name,
        implementation=job.architecture.implementation(),
        options=job.architecture.traits.keyed(job.options),
        weights=weights,
        mean=images.mean,
        std=images.std,
    )
    return ModelSource(source, identity)


def _source(label: str, job: Job, data: Dataset, checkpoints: Path, net: nn.Module | None) -> tuple[Source, str]:
    source = Source(label, job.architecture.name, dict(job.options), "", job.seed)
    if job.pretrained:
        try:
            weights = weights_hash((net or build_model(job, data)).state_dict())
        except BenchError as error:
            raise BenchError(f"model '{label}': {error}") from error
        return replace(source, foreign=replace(job.foreign, weights=weights) if job.foreign else None), weights
    path = job.checkpoint(checkpoints)
    return replace(source, checkpoint=str(path)), str(read_card(path)["weights"])

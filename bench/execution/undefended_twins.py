"""The undefended twin of a model: its feature extractor with a linear head, trained without a defence."""

from dataclasses import replace

from bench.data.load import Dataset
from bench.errors import BenchError
from bench.registry import model
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_choice import exact_name, trained_or_longest
from bench.training.job_identity import Job, make_job


def twin_job(job: Job, data: Dataset, config: Config, named: str = "auto") -> Job | None:
    """How the twin is trained; None for a model that is a twin itself.

    Args:
        job: the model's own job.
        named: a model's name to take in its place; auto: the registered model whose trait `twin_of` is the
            extractor of `job` (the paper's for this data set, where a model has none), same seed, recipe
            `standard` with the model's own settings if it was trained by that recipe; else with the defaults, or,
            where no such checkpoint is there, as the one of it that was trained longest.

    Raises:
        BenchError: `named` names no model.
    """
    if named != "auto":
        return make_job(parse_model(named), data, config, job.seed)
    if job.architecture.traits.twin_of:
        return None
    extractor = str(job.options.get("features", "auto"))
    if extractor == "auto":
        extractor = "fc" if data.images.shape[0] == 1 else "resnet20"
    found = [entry.name for entry in model if entry.traits.twin_of == extractor]
    if not found:
        raise BenchError(f"no model is registered with twin_of={extractor!r}, the extractor of '{job.label}'.")
    twin = make_job(parse_model(found[0]), data, config, job.seed)
    same = job.recipe.name == "standard" and not job.pretrained
    if not same:
        return trained_or_longest(twin, config.paths.checkpoints)
    alike = replace(twin, settings=job.settings)
    return replace(alike, label=exact_name(twin, alike))

"""Which checkpoint stands for a model: of those that its recipe trained, for however long, the one trained longest."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.settings.specs import Spec, parse_model
from bench.system.files import read_json, safe_name
from bench.training.checkpoint_files import card_path
from bench.training.job_identity import Job


def cards(folder: Path, dataset: str) -> list[tuple[Path, dict[str, Any]]]:
    """Checkpoints of a data set with their cards, by name. Cards that cannot be read are left out."""
    found = []
    for path in sorted((folder / safe_name(dataset)).glob("*.safetensors")):
        try:
            found.append((path, read_json(path.with_suffix(".json"))))
        except BenchError:
            continue  # `bench list models` shows it
    return found


def trained(job: Job, folder: Path) -> bool:
    """Whether nothing has to be trained for this job."""
    path = None if job.pretrained else job.checkpoint(folder)
    return path is None or (path.exists() and card_path(path).exists())


def trained_or_longest(job: Job, folder: Path) -> Job:
    """The job itself where it has been trained, else the one that stands for it (`longest_trained`)."""
    return job if trained(job, folder) else longest_trained(job, folder)


def longest_trained(job: Job, folder: Path) -> Job:
    """The job as the checkpoint with the most epochs was trained: other settings and recipe options than asked for.

    Architecture and its options, recipe, training radius, data and seed are the job's. The job itself if there
    is no such checkpoint, or nothing is trained.
    """
    if job.pretrained:
        return job
    found = []
    for path, card in cards(folder, job.dataset):
        as_trained = _adapted(job, card)
        if as_trained is not None and as_trained.checkpoint(folder) == path:
            rank = (as_trained.settings["epochs"], -len(differences(job, as_trained)), path.name)
            found.append((rank, as_trained))
    return max(found, key=lambda pair: pair[0])[1] if found else job


def differences(job: Job, other: Job) -> dict[str, Any]:
    """Settings and recipe options of `other` that are not the job's."""
    asked, had = ({**j.settings, **j.recipe_options} for j in (job, other))
    return {key: value for key, value in had.items() if value != asked[key]}


def training_note(job: Job, other: Job) -> str:
    """How long `other` was trained, and what else of it differs from the job: `3 of 10 epochs, lr=0.01`."""
    other_ways = differences(job, other)
    other_ways.pop("epochs", None)
    asked, had = job.settings["epochs"], other.settings["epochs"]
    epochs = f"{had} epochs" if had == asked else f"{had} of {asked} epochs"
    return ", ".join([epochs, *(f"{key}={value}" for key, value in sorted(other_ways.items()))])


def _adapted(job: Job, card: Mapping[str, Any]) -> Job | None:
    """The job with the card's settings; None where a setting is not ours or the radius of the training differs."""
    settings, options = card.get("settings"), card.get("recipe_options")
    if not isinstance(settings, dict) or not isinstance(options, dict):
        return None
    if settings.keys() != job.settings.keys() or options.keys() != job.recipe_options.keys():
        return None
    if options.get("eps") != job.recipe_options.get("eps"):
        return None
    sources = {}
    for option, source in job.sources.items():
        adapted = _adapted(source, card.get("sources", {}).get(option, {}))
        if adapted is None:
            return None
        sources[option] = adapted
    trained = replace(job, settings=settings, recipe_options=options, sources=sources)
    return replace(trained, label=exact_name(job, trained))


def exact_name(job: Job, trained: Job) -> str:
    """What trains exactly this on the command line, where its brackets can say it."""
    changed = differences(job, trained)
    if not changed:
        return job.label
    spec = parse_model(job.label)
    options = {**(spec.recipe.options if spec.recipe else {}), **{k: _spell(v) for k, v in changed.items()}}
    return str(replace(spec, recipe=Spec(job.recipe.name, options)))


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

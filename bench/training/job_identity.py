"""A training job: everything that determines the weights, under one hash, and the files it leaves."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.load import Dataset
from bench.errors import BenchError, unknown
from bench.models.images import Images
from bench.registry import ModelEntry, RecipeEntry, model, recipe
from bench.settings.config import Config, Train
from bench.settings.specs import ModelSpec, Spec, parse_model
from bench.system.canonical import canonical, slug
from bench.system.files import safe_name
from bench.training.external_checkpoints import Foreign, declared_checkpoint

_SETTINGS: dict[str, type] = {
    "epochs": int,
    "batch_size": int,
    "lr": float,
    "grad_clip": float,
    "augment": bool,
    "autocast": bool,
}


@dataclass(frozen=True)
class Job:
    """One model to train, all options resolved.

    Attributes:
        label: how the user calls it, e.g. `lyadeq[readout=step]`.
        architecture, options: the registered model and all its options.
        recipe, recipe_options: likewise.
        settings: epochs, batch_size, lr, betas, grad_clip, augment, autocast.
        images, augment: what the data set declares of its images, and whether it asks for augmentation.
        seed: training seed.
        foreign: weights trained elsewhere; then nothing is trained.
        sources: by option of the recipe, the jobs of models it is made from.
    """

    label: str
    architecture: ModelEntry
    options: Mapping[str, Any]
    recipe: RecipeEntry
    recipe_options: Mapping[str, Any]
    settings: Mapping[str, Any]
    dataset: str
    train_hash: str
    seed: int
    images: Images
    augment: bool
    foreign: Foreign | None = None
    sources: Mapping[str, "Job"] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """What the weights depend on; evaluation options do not enter."""
        options = self.architecture.traits.keyed(self.options)
        kept = {k: v for k, v in options.items() if k not in self.architecture.eval_options}
        return {
            "architecture": self.architecture.name,
            "implementation": self.architecture.implementation(),
            "options": kept,
            "recipe": self.recipe.name,
            "recipe_implementation": self.recipe.implementation(),
            "recipe_options": dict(self.recipe_options),
            "settings": dict(self.settings),
            "dataset": self.dataset,
            "train_data": self.train_hash,
            "images": {"classes": self.images.classes, "mean": self.images.mean, "std": self.images.std},
            "augment": self.augment and bool(self.settings["augment"]),
            "seed": self.seed,
            **({"foreign": self.foreign.identity()} if self.foreign else {}),
            **({"sources": {k: job.identity() for k, job in self.sources.items()}} if self.sources else {}),
        }

    @property
    def pretrained(self) -> bool:
        """Whether the weights come with the model, so that no recipe is run."""
        return self.foreign is not None or self.architecture.traits.pretrained

    def training_options(self) -> dict[str, Any]:
        """The options to train with: those of evaluation at their defaults.

        Recipes may run the model in eval mode; weights must not depend on what their identity leaves out.
        """
        defaults = self.architecture.defaults()
        return {k: defaults[k] if k in self.architecture.eval_options else v for k, v in self.options.items()}

    def digest(self) -> str:
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()

    def checkpoint(self, folder: Path) -> Path:
        """Where the weights go; the card stands beside them with the suffix .json."""
        name = (
            self.architecture.name if self.recipe.name == "standard" else f"{self.architecture.name}+{self.recipe.name}"
        )
        return folder / safe_name(self.dataset) / f"{slug(name)}-seed{self.seed}-{self.digest()[:10]}.safetensors"


def make_job(spec: ModelSpec, data: Dataset, config: Config, seed: int, epochs: int | None = None) -> Job:
    """Resolve a model's name against registry, bench.toml and data set.

    Args:
        epochs: from the command line; None: as bench.toml has it.

    Raises:
        BenchError: unknown model, recipe or option, or a value that does not fit.
    """
    entry, options = resolve_model(spec, config)
    name = spec.architecture.name
    foreign = declared_checkpoint(name, config.models.get(name), data.images)
    if foreign and entry.traits.pretrained:
        raise BenchError(
            f"bench.toml [models.{name}]: arch '{entry.name}' comes with weights and normalisation of its own, so that "
            "checkpoint, mean and std would have no effect; leave them out, or name an architecture without weights."
        )
    if foreign:
        _check_untrained(name, {**config.models[name].options, **spec.architecture.options})
    if spec.recipe and (foreign or entry.traits.pretrained):
        where = " from bench.toml" if foreign else ""
        raise BenchError(f"model '{name}' comes with its weights{where}; it takes no recipe '{spec.recipe}'.")
    named = spec.recipe or Spec(entry.traits.recipe)
    how = recipe[named.name]
    settings = _settings(config.train, how, data.name, epochs)
    own: dict[str, str] = {}
    for key, value in named.options.items():
        if key in _SETTINGS:
            settings[key] = _convert(key, value)
        elif key in how.defaults():
            own[key] = value
        else:
            raise unknown(f"option of recipe '{how.name}'", key, [*_SETTINGS, *how.defaults()])
    resolved = how.resolve(own)
    how.check_effect(own, resolved)
    if named.options.get("augment") is not None and settings["augment"] and not data.augment:
        raise BenchError(
            f"recipe '{how.name}': augment={settings['augment']} has no effect, data set '{data.name}' is not to be "
            "augmented; leave it out, or write augment = true in [datasets.NAME] for a data set of your own."
        )
    needed = {option: parse_model(resolved[option]) for option in how.traits.sources}
    sources = {option: make_job(source, data, config, seed, epochs) for option, source in needed.items()}
    return Job(
        label=str(spec),
        architecture=entry,
        options=options,
        recipe=how,
        recipe_options=resolved,
        settings=settings,
        dataset=data.name,
        train_hash=data.train_hash,
        seed=seed,
        images=data.images,
        augment=data.augment,
        foreign=foreign,
        sources=sources,
    )


def _check_untrained(name: str, given: Mapping[str, Any]) -> None:
    """Raise BenchError for options of training, called train_… by every model, where nothing is trained."""
    idle = [option for option in given if option.startswith("train_")]
    if idle:
        raise BenchError(
            f"model '{name}': {idle[0]}={given[idle[0]]} has no effect, its weights come from a checkpoint; "
            "leave it out."
        )


def resolve_model(spec: ModelSpec, config: Config) -> tuple[ModelEntry, dict[str, Any]]:
    """The architecture and all its options: defaults, then [options.GROUP], then [models.NAME], then the brackets."""
    name, given = spec.architecture.name, dict(spec.architecture.options)
    declared = config.models.get(name)
    entry = model[declared.arch if declared else name] if declared or name in model else None
    if entry is None:
        raise unknown("model", name, [*model.names(), *config.models])
    grouped = config.options.get(entry.group, {}) if entry.group else {}
    _check_group(entry.group, grouped)
    applicable = {k: v for k, v in grouped.items() if k in entry.defaults()}
    own = {**(declared.options if declared else {}), **given}
    resolved = entry.resolve({**applicable, **own})
    entry.check_effect(own, resolved)
    return entry, resolved


def check_groups(config: Config) -> None:
    """Raise BenchError for a section [options.GROUP] that no model belongs to."""
    groups = {entry.group for entry in model if entry.group}
    for group in config.options:
        if group not in groups:
            raise unknown("section of [options]", group, groups)


def _check_group(group: str, options: Mapping[str, Any]) -> None:
    if not options:
        return
    defaults: dict[str, set[Any]] = {}
    for entry in model:
        if entry.group == group:
            for option, value in entry.defaults().items():
                defaults.setdefault(option, set()).add(value)
    # An option whose default tells members apart (the orthogonal layer of deq-orth) is not the group's to set.
    shared = [option for option, values in defaults.items() if len(values) == 1]
    for option in options:
        if option not in shared:
            raise BenchError(f"bench.toml [options.{group}]: {unknown('key', option, shared)}")


def _settings(train: Train, how: RecipeEntry, dataset: str, epochs: int | None) -> dict[str, Any]:
    fallback = train.epochs.get("default", 50)
    settings = {
        "epochs": train.epochs.get(dataset, fallback),
        "batch_size": train.batch_size,
        "lr": train.lr,
        "betas": list(train.betas),
        "grad_clip": train.grad_clip,
        "augment": train.augment,
        "autocast": train.autocast,
        **how.traits.settings,
    }
    return settings if epochs is None else {**settings, "epochs": epochs}


def _convert(key: str, value: str) -> Any:
    kind = _SETTINGS[key]
    try:
        converted = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        expected = "true or false" if kind is bool else kind.__name__
        raise BenchError(f"recipe option {key}={value}: expected {expected}.") from None
    if kind is not bool and converted < (0 if key == "grad_clip" else 1e-12):
        raise BenchError(f"recipe option {key}={value}: must be positive.")
    return converted

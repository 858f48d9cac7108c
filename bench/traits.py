"""What a registration may say of its target, one record per kind; the decorators take these fields as keywords."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Idle = Callable[..., Mapping[str, str]]


@dataclass(frozen=True)
class ModelTraits:
    """Of an architecture.

    Attributes:
        pretrained: its weights come with it, so that no recipe is run.
        recipe: the recipe of a name without one.
        rename: from a parameter's name in checkpoints of other projects to ours.
        twin_of: the extractor (option `features`) whose undefended twin it is.
        places: options that say where a file lies, and are part of no key.
        idle: from all options by name to those that have no effect beside the others, with what they belong to.
    """

    pretrained: bool = False
    recipe: str = "standard"
    rename: Callable[[str], str] | None = None
    twin_of: str = ""
    places: tuple[str, ...] = ()
    idle: Idle | None = None

    def keyed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that results are keyed by."""
        return {name: value for name, value in options.items() if name not in self.places}


@dataclass(frozen=True)
class AttackTraits:
    """Of an attack.

    Attributes:
        label: as tables print it; the name where there is none.
        ascent: from its options to its signed-gradient steps, for the packed engine (`bench.attacks.core.sign_ascent`).
        stages: from its options to its stages by name, for an attack that is a cascade.
        warm: its stages start from the best image found so far.
        nested: an image that is broken at a smaller radius counts as broken at a larger one.
        folds: from its options to whether its stages may search on the model's folded form.
        twin: the option that names the undefended twin it starts from.
        engines: options that choose between codes equal in outcome.
        views: the stages that follow a view of the model of the same name.
        idle: as of a model.
    """

    label: str = ""
    ascent: Callable[..., Any] | None = None
    stages: Callable[..., Mapping[str, Any]] | None = None
    warm: bool = False
    nested: bool = False
    folds: Callable[..., bool] | None = None
    twin: str = ""
    engines: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    idle: Idle | None = None

    def ascent_of(self, options: Mapping[str, Any]) -> Any:
        """Its signed-gradient steps (`SignAscent`). Raises ValueError where it is no such attack."""
        if self.ascent is None:
            raise ValueError("the attack does not consist of signed-gradient steps")
        return self.ascent(**options)

    def strength(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that say how strong the attack is."""
        return {name: value for name, value in options.items() if name not in self.engines}


@dataclass(frozen=True)
class ProtocolTraits:
    """Of a protocol: `space`, what its attacks move, pixels or (a control) normalised tensors."""

    space: Literal["pixel", "normalised"] = "pixel"


@dataclass(frozen=True)
class DatasetTraits:
    """Of a data set.

    Attributes:
        classes: how many; counted from the labels where there is none.
        mean, std: per channel, of pixels in [0, 1]; computed from the training set where there are none.
        augment: whether training takes random crops and flips.
        offline: it comes along, so that no file takes its place.
    """

    classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: bool = False
    offline: bool = False


@dataclass(frozen=True)
class RecipeTraits:
    """Of a training recipe.

    Attributes:
        settings: in place of [train]'s: epochs, batch_size, lr, grad_clip.
        schedule: from the step and the number of steps to a factor of the rate; cosine where there is none.
        sources: options that name a model it is made from.
        prepare: what makes its training set.
        idle: as of a model.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[int, int], float] | None = None
    sources: tuple[str, ...] = ()
    prepare: Callable[..., Any] | None = None
    idle: Idle | None = None

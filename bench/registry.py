"""What there is: models, attacks, data sets, recipes and protocols, each known by a name.

The only part of `bench` that `models`, `attacks` and plugins may import. A target's options are
its keyword-only parameters (or those of `options=`), so a name such as `lyadeq[readout=step]` can be
checked, resolved and stored without asking the target's author for anything more.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.errors import BenchError, unknown
from bench.traits import AttackTraits, DatasetTraits, ModelTraits, ProtocolTraits, RecipeTraits

Target = TypeVar("Target", bound=Callable[..., Any])
Traits = TypeVar("Traits", ModelTraits, AttackTraits, ProtocolTraits, DatasetTraits, RecipeTraits)

_OURS = "bench."


@dataclass(frozen=True)
class Entry(Generic[Traits]):
    """One registered target and what the harness must know to name, resolve and key it."""

    kind: str
    name: str
    target: Callable[..., Any]
    traits: Traits
    version: int | str = 1
    group: str = ""
    eval_options: frozenset[str] = frozenset()
    options_of: Callable[..., Any] | None = None

    @property
    def summary(self) -> str:
        """The first line of the target's docstring."""
        return (inspect.getdoc(self.target) or "").split("\n", 1)[0]

    @property
    def is_builtin(self) -> bool:
        return self.target.__module__.startswith(_OURS)

    @property
    def label(self) -> str:
        """As tables print it."""
        return getattr(self.traits, "label", "") or self.name

    def defaults(self) -> dict[str, Any]:
        """Every option and its default. Raises BenchError for an option without one."""
        found = {}
        for name, parameter in self._parameters().items():
            if parameter.default is inspect.Parameter.empty:
                raise BenchError(f"{self.kind} '{self.name}': option '{name}' needs a default value.")
            found[name] = parameter.default
        return found

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` checked and converted to the options' types, over the defaults.

        Raises BenchError for an unknown option or a value of the wrong type.
        """
        resolved = self.defaults()
        parameters = self._parameters()
        for name, value in given.items():
            if name not in resolved:
                raise unknown(f"option of {self.kind} '{self.name}'", name, resolved)
            hint = parameters[name].annotation
            untyped = hint is inspect.Parameter.empty
            resolved[name] = self._convert(name, value, type(resolved[name]) if untyped else hint)
        if self.options_of:
            try:
                self.options_of(**resolved)
            except ValueError as error:
                raise BenchError(f"{self.kind} '{self.name}': {error}.") from error
        return resolved

    def check_effect(self, given: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Raise BenchError where an option that was given has no effect beside the others.

        What is given and applied nowhere enters the key of every result, and lets two equal numbers look like two
        findings.

        Args:
            given: the options that the user wrote; one at its default value is let pass.
            resolved: all of them.
        """
        idle = getattr(self.traits, "idle", None)
        defaults = self.defaults()
        for name, belongs_to in (idle(**resolved) if idle else {}).items():
            if name in given and resolved[name] != defaults[name]:
                raise BenchError(
                    f"{self.kind} '{self.name}': {name}={resolved[name]} has no effect here, it belongs to "
                    f"{belongs_to}; leave it out."
                )

    def implementation(self) -> str:
        """The version that keys results; for a plugin also the hash of the file that defines it."""
        if self.is_builtin:
            return str(self.version)
        try:
            source = Path(inspect.getsourcefile(inspect.unwrap(self.target)) or "").read_bytes()
        except (OSError, TypeError):
            return f"{self.version}-unknown-source"
        return f"{self.version}-{hashlib.sha256(source).hexdigest()[:16]}"

    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.options_of or self.target, eval_str=True).parameters
        if self.options_of:
            return dict(parameters)
        return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def _convert(self, name: str, value: Any, hint: Any) -> Any:
        try:
            return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise BenchError(f"{self.kind} '{self.name}': {name}={value!r:.60}: {reason}.") from error


class Registry(Generic[Traits]):
    """Entries of one kind; the built-in ones are imported at the first look-up."""

    def __init__(self, kind: str, builtins: str, traits: type[Traits]) -> None:
        self.kind = kind
        self._traits: type[Traits] = traits
        self._builtins = builtins
        self._entries: dict[str, Entry[Traits]] = {}
        self._namespaces: dict[str, Callable[[str], Entry[Traits]]] = {}

    def namespace(self, prefix: str) -> Callable[[Callable[[str], Entry[Traits]]], Callable[[str], Entry[Traits]]]:
        """Decorator: names `prefix:NAME` are looked up by the function, which takes NAME."""

        def register(find: Callable[[str], Entry[Traits]]) -> Callable[[str], Entry[Traits]]:
            self._namespaces[prefix] = find
            return find

        return register

    def __call__(
        self,
        name: str,
        *,
        version: int | str = 1,
        group: str = "",
        eval_options: frozenset[str] = frozenset(),
        options: Callable[..., Any] | None = None,
        **traits: Any,
    ) -> Callable[[Target], Target]:
        """Decorator: register the target as `name`.

        Args:
            name: how users call it; no comma, bracket or plus sign.
            version: raise it whenever the target's numbers change; part of every stored key.
            group: section of `[options.GROUP]` in bench.toml that sets its defaults.
            eval_options: options that leave trained weights as they are (solver tolerance, …).
            options: a callable whose parameters are the options, in place of keyword-only ones.
            traits: what else the harness reads of this kind: the fields of its record in `bench.traits`.

        Raises:
            BenchError: a name that cannot be asked for or is taken, or an unknown trait.
        """

        if not name or set(name) & set(",[]+ "):
            raise BenchError(f"{self.kind} name '{name}' may not hold commas, brackets, plus or space.")
        allowed: list[str] = [one.name for one in fields(self._traits)]
        for trait in traits:
            if trait not in allowed:
                taken = ["version", "group", "eval_options", "options", *allowed]
                raise unknown(f"keyword of the {self.kind} '{name}'", trait, taken)
        said = self._traits(**traits)

        def register(target: Target) -> Target:
            old = self._entries.get(name)
            if old and (old.target.__module__, old.target.__qualname__) != (
                target.__module__,
                target.__qualname__,
            ):
                raise BenchError(
                    f"{self.kind} '{name}' is registered twice: by {old.target.__module__} and by "
                    f"{target.__module__}. Rename one."
                )
            self._entries[name] = Entry(self.kind, name, target, said, version, group, eval_options, options)
            return target

        return register

    def __getitem__(self, name: str) -> Entry[Traits]:
        """The entry called `name`; raises BenchError with a suggestion where there is none."""
        self._load()
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self._namespaces:
            return self._namespaces[prefix](rest)
        if name not in self._entries:
            raise unknown(self.kind, name, self.names())
        return self._entries[name]

    def names(self) -> list[str]:
        """Everything that can be asked for, a namespace as `prefix:NAME`."""
        self._load()
        return [*sorted(self._entries), *(f"{prefix}:NAME" for prefix in self._namespaces)]

    def __iter__(self) -> Iterator[Entry[Traits]]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; within a namespace, looking it up tells."""
        self._load()
        prefix, colon, _ = str(name).partition(":")
        return name in self._entries or (bool(colon) and prefix in self._namespaces)

    def _load(self) -> None:
        importlib.import_module(self._builtins)


model = Registry("model", "bench.models", ModelTraits)
attack = Registry("attack", "bench.attacks", AttackTraits)
protocol = Registry("protocol", "bench.attacks", ProtocolTraits)
dataset = Registry("data set", "bench.data", DatasetTraits)
recipe = Registry("recipe", "bench.training", RecipeTraits)

ModelEntry = Entry[ModelTraits]
AttackEntry = Entry[AttackTraits]
ProtocolEntry = Entry[ProtocolTraits]
DatasetEntry = Entry[DatasetTraits]
RecipeEntry = Entry[RecipeTraits]

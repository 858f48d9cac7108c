"""What there is: models, attacks, data sets, recipes and protocols, each known by a name.

The only part of `bench` that `models`, `attacks` and plugins may import. A target's options are
its keyword-only parameters (or those of `options=`), so a name such as `lyadeq[readout=step]` can be
checked, resolved and stored without asking the target's author for anything more.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.errors import BenchError, unknown

Target = TypeVar("Target", bound=Callable[..., Any])

_OURS = "bench."


@dataclass(frozen=True)
class Entry:
    """One registered target and what the harness must know to name, resolve and key it."""

    kind: str
    name: str
    target: Callable[..., Any]
    version: int | str = 1
    group: str = ""
    eval_options: frozenset[str] = frozenset()
    options_of: Callable[..., Any] | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the target's docstring."""
        return (inspect.getdoc(self.target) or "").split("\n", 1)[0]

    @property
    def is_builtin(self) -> bool:
        return self.target.__module__.startswith(_OURS)

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

    def keyed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that results are keyed by: without those (trait `places`) that say where a file lies."""
        return {name: value for name, value in options.items() if name not in self.traits.get("places", ())}

    def strength(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that say how strong an attack is: without those (trait `engines`) that choose between codes
        equal in outcome."""
        return {name: value for name, value in options.items() if name not in self.traits.get("engines", ())}

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
            raise BenchError(f"{self.kind} '{self.name}': {name}={value!r}: {reason}.") from error


class Registry:
    """Entries of one kind; the built-in ones are imported at the first look-up."""

    def __init__(self, kind: str, builtins: str) -> None:
        self.kind = kind
        self._builtins = builtins
        self._entries: dict[str, Entry] = {}
        self._namespaces: dict[str, Callable[[str], Entry]] = {}

    def namespace(self, prefix: str) -> Callable[[Callable[[str], Entry]], Callable[[str], Entry]]:
        """Decorator: names `prefix:NAME` are looked up by the function, which takes NAME."""

        def register(find: Callable[[str], Entry]) -> Callable[[str], Entry]:
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
            traits: whatever else the harness reads for this kind.
        """

        if not name or set(name) & set(",[]+ "):
            raise BenchError(f"{self.kind} name '{name}' may not hold commas, brackets, plus or space.")

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
            self._entries[name] = Entry(self.kind, name, target, version, group, eval_options, options, traits)
            return target

        return register

    def __getitem__(self, name: str) -> Entry:
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

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; within a namespace, looking it up tells."""
        self._load()
        prefix, colon, _ = str(name).partition(":")
        return name in self._entries or (bool(colon) and prefix in self._namespaces)

    def _load(self) -> None:
        importlib.import_module(self._builtins)


model = Registry("model", "bench.models")
attack = Registry("attack", "bench.attacks")
protocol = Registry("protocol", "bench.attacks")
dataset = Registry("data set", "bench.data")
recipe = Registry("recipe", "bench.training")

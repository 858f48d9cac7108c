"""The grammar of names: `lyadeq[readout=step,tol=1e-6]+trades[beta=3]`, and comma lists of them.

An option may hold such a name itself: `deq+robust-dataset[source=resnet20+pgd-at[eps=0.1]]`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bench.errors import BenchError

_PART = re.compile(r"(?P<name>[^\[\]+,=\s]+)(?:\[(?P<options>.*)\])?")


@dataclass(frozen=True)
class Spec:
    """A registered name with the options given for it, as text."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in sorted(self.options.items()))
        return f"{self.name}[{options}]" if options else self.name


@dataclass(frozen=True)
class ModelSpec:
    """An architecture and the recipe it was trained with; None: the architecture's own, for most `standard`."""

    architecture: Spec
    recipe: Spec | None = None

    def __str__(self) -> str:
        return f"{self.architecture}+{self.recipe}" if self.recipe else str(self.architecture)


def split_list(text: str) -> list[str]:
    """Split on the commas outside brackets; empty parts vanish."""
    return [part.strip() for part in _split(text, ",") if part.strip()]


def parse_spec(text: str) -> Spec:
    """`name` or `name[key=value,…]`. Raises BenchError for any other form."""
    match = _PART.fullmatch(text.strip())
    if not match:
        raise BenchError(f"cannot read '{text}': write name or name[option=value,…].")
    options = {}
    for item in filter(None, _split(match["options"] or "", ",")):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise BenchError(f"cannot read '{item}' in '{text}': write option=value.")
        if key.strip() in options:
            raise BenchError(f"option '{key.strip()}' stands twice in '{text}'.")
        options[key.strip()] = value.strip()
    return Spec(match["name"], options)


def parse_model(text: str) -> ModelSpec:
    """`architecture[…]` or `architecture[…]+recipe[…]`."""
    parts = _split(text, "+")
    if len(parts) > 2:
        raise BenchError(f"cannot read '{text}': one recipe at most, architecture+recipe.")
    return ModelSpec(parse_spec(parts[0]), parse_spec(parts[1]) if len(parts) == 2 else None)


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside brackets. Raises BenchError where brackets do not match."""
    parts, depth = [""], 0
    for sign in text:
        depth += {"[": 1, "]": -1}.get(sign, 0)
        if depth < 0:
            break
        if sign == separator and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    if depth:
        raise BenchError(f"cannot read '{text}': its brackets do not match.")
    return parts


def unique(names: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(names))

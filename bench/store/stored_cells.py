"""Everything a store holds, found by looking, not by planning: what figures and the page are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.evaluation.certificates import CERTIFICATE, certificate_label
from bench.evaluation.input_space import space_of
from bench.evaluation.outcomes import Outcomes
from bench.registry import attack, protocol
from bench.store.cells import Cell, Source
from bench.store.identity import CellIdentity
from bench.store.store import Store
from bench.system.files import read_json


@dataclass(frozen=True)
class StoredCell:
    """A complete cell as it lies in the store.

    Attributes:
        cell: rebuilt from its key; `examples` are those it holds, not the test set's size.
        manifest: how it was made.
        store: where it lies.
    """

    cell: Cell
    manifest: dict[str, Any]
    store: Store

    @cached_property
    def outcomes(self) -> Outcomes:
        """Of all its examples, in order. Raises BenchError for a damaged shard."""
        found = self.store.outcomes(self.cell, 0)
        if found is None:
            raise BenchError(f"cell {self.store.cell_folder(self.cell)} lacks a shard that its manifest names.")
        return found

    @property
    def label(self) -> str:
        return self.cell.source.label

    @property
    def certificate(self) -> bool:
        """Whether it holds the model's own proofs, and nothing attacks."""
        return self.cell.certificate


def inventory(store: Store) -> tuple[list[StoredCell], list[str]]:
    """The complete cells, each once, by folder; and a line for every one that cannot be read."""
    found: dict[str, StoredCell] = {}
    problems = []
    for path in sorted(store.folder.glob("*/*/*/manifest.json")):
        try:
            stored = _held(path.parent, store)
        except (BenchError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{path.parent}: {error}")
            continue
        found.setdefault(stored.cell.key(), stored)
    return list(found.values()), problems


def _held(folder: Path, store: Store) -> StoredCell:
    identity = CellIdentity.from_json(read_json(folder / "key.json"))
    manifest = read_json(folder / "manifest.json")
    options, attacked = dict(identity.attack_options), identity.attack
    label = attack_label(identity.protocol, attacked, {identity.eps: options})
    model = identity.model
    source = Source(str(manifest["label"]), model.architecture, dict(model.options), "", int(manifest["train_seed"]))
    return StoredCell(Cell(source, identity, int(manifest["examples"]), label), manifest, store)


def attack_label(how: str, name: str, options: Mapping[Fraction, Mapping[str, Any]]) -> str:
    """As tables, figures and the page print an attack: in brackets the options that are not the protocol's.

    Args:
        how: the protocol; a control's label says that it is one.
        options: by radius all of the attack's options, resolved; one that differs at any of the radii is shown.
    """
    if name == CERTIFICATE:
        return certificate_label(next(iter(options.values())))
    if name not in attack or how not in protocol:
        return name  # of a plugin that is not loaded
    entry, other = attack[name], dict[str, Any]()
    for eps, resolved in options.items():
        usual = {**entry.defaults(), **protocol[how].target(eps).get(name, {})}
        other |= {option: value for option, value in resolved.items() if usual.get(option) != value}
    shown = ",".join(f"{option}={value}" for option, value in sorted(other.items()))
    control = "" if space_of(protocol[how]) == "pixel" else " (control)"
    return (f"{entry.label}[{shown}]" if shown else entry.label) + control

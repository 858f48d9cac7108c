"""Numbers of the store computed again from their checkpoints: do they come out as stored?"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError, unknown
from bench.evaluation.certificates import CERTIFICATE, IMPLEMENTATION
from bench.evaluation.outcomes import Outcomes
from bench.execution.worker import Setting, compute
from bench.registry import Registry, attack, model, protocol
from bench.settings.specs import ModelSpec, Spec, parse_model
from bench.statistics import Share
from bench.store.cells import SHARD, Cell, Source
from bench.store.identity import ENGINES, CellIdentity, ModelIdentity
from bench.store.store import Store
from bench.store.stored_cells import StoredCell
from bench.system.files import safe_name
from bench.training.checkpoint_choice import cards

ENOUGH = 0.99  # share of images that must come out alike: other hardware rounds differently


@dataclass(frozen=True)
class Reproduction:
    """One cell computed again.

    Attributes:
        stored: the cell.
        first: position in the test set of the first image compared.
        same: share of images with the stored clean prediction and verdict; None: it was not computed.
        why: what kept it from being computed.
    """

    stored: StoredCell
    first: int = 0
    same: Share | None = None
    why: str = ""

    @property
    def failed(self) -> bool:
        return self.same is not None and self.same.hits < ENOUGH * self.same.n


def names(stored: StoredCell) -> set[str]:
    """What its model may be called: with all of its options, and without."""
    spec = parse_model(stored.label)
    plain = ModelSpec(Spec(spec.architecture.name), spec.recipe and Spec(spec.recipe.name))
    return {stored.label, str(plain)}


def only(
    stored: Sequence[StoredCell], kind: str, wanted: Sequence[str], named: Callable[[StoredCell], set[str]]
) -> list[StoredCell]:
    """The cells with one of the wanted names; all, where none is wanted. Raises BenchError for a name nobody has."""
    known = set[str]().union(*(named(one) for one in stored))
    for name in wanted:
        if name not in known:
            raise unknown(f"{kind} in the store", name, known)
    return [one for one in stored if not wanted or named(one) & set(wanted)]


def choose(stored: Sequence[StoredCell], count: int, seed: int, seconds: float) -> tuple[list[StoredCell], int]:
    """`count` cells at random, and how many were left out since a shard of theirs took longer than `seconds`.

    A cell that goes on from smaller radii takes as long as all of its chain.
    """
    spent = {one.cell.key(): _shard_seconds(one) for one in stored}
    quick = [one for one in stored if sum(spent.get(link.key(), 0.0) for link in _chain(one.cell)) <= seconds]
    drawn = np.random.default_rng(seed).permutation(len(quick))[:count]
    return [quick[position] for position in drawn], len(stored) - len(quick)


def reproduce(
    chosen: Sequence[StoredCell], examples: int, seed: int, setting: Setting, checkpoints: Path
) -> Iterator[Reproduction]:
    """Compute a random shard of every cell and compare its first images with what is stored.

    Args:
        examples: how many images of the shard are compared, at most 250.
        setting: as a worker takes it; its store is not touched.
        checkpoints: where the weights are looked for, by their hash.
    """
    for number, stored in enumerate(chosen):
        shard = int(np.random.default_rng((seed, number)).choice(stored.cell.shards(0)))
        why = _obstacle(stored.cell.identity)
        try:
            cell = _with_weights(stored.cell, checkpoints) if not why else None
        except BenchError as error:
            cell, why = None, str(error)
        if cell is None:
            yield Reproduction(stored, why=why)
            continue
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = replace(setting, store=Path(folder))
            for link in _chain(cell):
                result = compute(elsewhere, [link], [shard])
                if result.state != "done":
                    yield Reproduction(stored, why=result.message.removeprefix(f"{stored.cell.attack_label}: "))
                    break
            else:
                again = Store(Path(folder)).read(cell, shard)[0]
                yield Reproduction(
                    stored, shard * SHARD, _compare(stored.store.read(stored.cell, shard)[0], again, examples)
                )


def _compare(stored: Outcomes, again: Outcomes, examples: int) -> Share:
    names = ["label", "clean", "certified" if "certified" in stored else "broken"]
    same = np.all([stored[name][:examples] == again[name][:examples] for name in names], axis=0)
    return Share(int(same.sum()), len(same))


def _obstacle(identity: CellIdentity) -> str:
    """Why the code at hand cannot compute the cell: another version of a piece, or one that is not there."""
    pieces: list[tuple[str, str, Registry[Any], str]] = [
        ("model", one.architecture, model, one.implementation) for one in (identity.model, identity.twin) if one
    ]
    if identity.attack != CERTIFICATE:
        pieces.append(("protocol", identity.protocol, protocol, identity.protocol_implementation))
        pieces.append(("attack", identity.attack, attack, identity.attack_implementation))
    elif identity.attack_implementation != IMPLEMENTATION:
        return "its certificate was computed by another version"
    if ENGINES.get(identity.engine) != identity.engine_version:
        return f"its engine, {identity.engine} {identity.engine_version}, is another version here"
    for kind, name, registry, version in pieces:
        if name not in registry:
            return f"{kind} '{name}' is not registered here (a plugin?)"
        if registry[name].implementation() != version:
            return f"{kind} '{name}' has version {registry[name].implementation()} here, the cell is of {version}"
    return ""


def _with_weights(cell: Cell, checkpoints: Path) -> Cell:
    """The cell with the places of its weights, and of its twin's. Raises BenchError where they are not there."""
    twin = cell.identity.twin
    return replace(
        cell,
        source=_source(cell.identity.model, cell.source, cell.dataset, checkpoints),
        twin=_source(twin, None, cell.dataset, checkpoints) if twin else None,
    )


def _source(facts: ModelIdentity, known: Source | None, dataset: str, checkpoints: Path) -> Source:
    for path, card in cards(checkpoints, dataset):
        if card.get("weights") == facts.weights:
            label = known.label if known else str(card["label"])
            return Source(label, facts.architecture, dict(facts.options), str(path), int(card["seed"]))
    raise BenchError(f"no checkpoint in {checkpoints / safe_name(dataset)} has its weights ({facts.weights[:12]}…)")


def _chain(cell: Cell) -> list[Cell]:
    """The cell behind those that it goes on from, smallest radius first."""
    below = cell.identity.chain
    if below is None:
        return [cell]
    links: list[Cell] = []
    for position, radius in enumerate((*below, cell.eps)):
        identity = replace(cell.identity, eps=radius, chain=below[:position])
        links.append(replace(cell, identity=identity, smaller=links[-1] if links else None))
    return links


def _shard_seconds(stored: StoredCell) -> float:
    return float(stored.manifest["budget"]["seconds"]) / max(1, int(stored.manifest["shards"]))

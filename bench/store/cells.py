"""Cells: one number of a table each, keyed by everything that determines it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from bench.settings.radii import show_eps
from bench.training.external_weights import Foreign
from bench.training.job import canonical, slug

SHARD = 250  # examples; cut at fixed offsets of the test set, never from --examples
SCHEMA = 1
ENGINES = {
    "reference": 2,
    "packed": 2,
}  # how outcomes are computed, and its version (bench.evaluation.reference_engine, bench.evaluation.packed_engine)


@dataclass(frozen=True)
class Source:
    """Where a worker finds a model: a registered architecture with its options and weights.

    Attributes:
        label: what the user calls it; names the row of a table, not the number.
        architecture, options: registered name and all resolved options.
        checkpoint: path of the weights.
        train_seed: which seed they were trained with.
        foreign: weights trained elsewhere, in place of a checkpoint of ours.
    """

    label: str
    architecture: str
    options: dict[str, Any]
    checkpoint: str
    train_seed: int
    foreign: Foreign | None = None


@dataclass(frozen=True)
class Cell:
    """(model, data set, protocol, attack, ε).

    Attributes:
        source: the model to load.
        dataset: its data set's name.
        examples: size of the test set.
        attack: registered name; `attack_options` are all resolved.
        attack_label: as the table prints it.
        eps: radius as a fraction of the pixel range.
        identity: everything that determines the outcomes.
        twin: the model's undefended twin, for attacks that start there.
        nested: whether it is part of a chain of radii (worst case over ε); then its images are kept.
        smaller: the cell at the next smaller radius of the chain, whose images this one goes on from.
        certificate: whether the outcomes are the model's own proofs, and nothing attacks.
    """

    source: Source
    dataset: str
    examples: int
    protocol: str
    attack: str
    attack_label: str
    attack_options: dict[str, Any]
    eps: Fraction
    seed: int
    batch: int
    identity: dict[str, Any] = field(hash=False, compare=False, default_factory=dict)
    twin: Source | None = None
    nested: bool = False
    smaller: "Cell | None" = None
    certificate: bool = False

    def key(self) -> str:
        """SHA-256 of the canonical identity."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()

    @property
    def packed(self) -> bool:
        """Whether it is computed together with others of its model (`bench.evaluation.packed_engine`)."""
        return bool(self.identity["engine"]["name"] == "packed")

    def folder(self) -> str:
        """Path below the store: readable, and unique through the key."""
        radius = show_eps(self.eps).replace("/", "-")
        return f"{self.dataset}/{slug(self.source.label)}/{slug(self.attack)}@{radius}-{self.key()[:16]}"

    def shards(self, examples: int) -> range:
        """Indices of the shards that hold the first `examples` test images (0: all)."""
        wanted = min(examples or self.examples, self.examples)
        return range(-(-wanted // SHARD))

    def rows(self, shard: int) -> range:
        """Test-set indices of one shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.examples))


def engine_for(traits: Mapping[str, Any], chosen: str) -> str:
    """The engine that computes an attack with these traits: only ascents can be packed."""
    return chosen if "ascent" in traits else "reference"


def cell_identity(
    *,
    model: dict[str, Any],
    dataset: str,
    test_hash: str,
    protocol: str,
    protocol_implementation: str,
    attack: str,
    attack_implementation: str,
    attack_options: dict[str, Any],
    eps: Fraction,
    seed: int,
    device: str,
    engine: str,
    batch: int,
    twin: dict[str, Any] | None = None,
    chain: list[str] | None = None,
) -> dict[str, Any]:
    """What a cell's key is the hash of. Nothing of order, time or place; device is the class alone. (How a packed cell
    rounds depends on what was computed with it; that is not part of the key either.)

    Args:
        model: architecture, implementation, options, weights' hash, mean and std.
        engine: `packed` or `reference`.
        twin: the same of the undefended twin, where the attack starts from one.
        chain: the smaller radii a nested cell goes on from, ascending.
    """
    return {
        "schema": SCHEMA,
        "model": model,
        "data": {"name": dataset, "split": "test", "hash": test_hash},
        "protocol": {"name": protocol, "implementation": protocol_implementation},
        "attack": {"name": attack, "implementation": attack_implementation, "options": attack_options},
        "eps": str(eps),
        "seed": seed,
        "dtype": "float32",
        "device": device,
        "engine": {"name": engine, "version": ENGINES[engine], "batch": batch},
        **({} if twin is None else {"twin": twin}),
        **({} if chain is None else {"chain": chain}),
    }

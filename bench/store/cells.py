"""Cells: one number of a table each, keyed by everything that determines it."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bench.evaluation.certificates import CERTIFICATE
from bench.registry import AttackEntry
from bench.settings.radii import show_eps
from bench.store.identity import CellIdentity
from bench.system.canonical import slug
from bench.system.files import safe_name
from bench.training.external_checkpoints import Foreign

SHARD = 250  # examples; cut at fixed offsets of the test set, never from --examples


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
    """(model, data set, protocol, attack, ε): what determines its outcomes, and where its pieces are.

    Attributes:
        source: the model to load.
        identity: everything that determines the outcomes.
        examples: size of the test set.
        attack_label: as the table prints it.
        twin: the model's undefended twin, for attacks that start there.
        smaller: the cell at the next smaller radius of the chain, whose images this one goes on from.
    """

    source: Source
    identity: CellIdentity
    examples: int
    attack_label: str
    twin: Source | None = None
    smaller: "Cell | None" = None

    def key(self) -> str:
        return self.identity.key()

    @property
    def dataset(self) -> str:
        return self.identity.dataset

    @property
    def protocol(self) -> str:
        return self.identity.protocol

    @property
    def attack(self) -> str:
        """Registered name."""
        return self.identity.attack

    @property
    def attack_options(self) -> Mapping[str, Any]:
        """All of them, resolved."""
        return self.identity.attack_options

    @property
    def eps(self) -> Fraction:
        """Radius as a fraction of the pixel range."""
        return self.identity.eps

    @property
    def seed(self) -> int:
        """Of the attack."""
        return self.identity.seed

    @property
    def batch(self) -> int:
        return self.identity.batch

    @property
    def nested(self) -> bool:
        """Whether it is part of a chain of radii (worst case over ε); then its images are kept."""
        return self.identity.chain is not None

    @property
    def certificate(self) -> bool:
        """Whether the outcomes are the model's own proofs, and nothing attacks."""
        return self.attack == CERTIFICATE

    @property
    def packed(self) -> bool:
        """Whether it is computed together with others of its model (`bench.evaluation.packed_engine`)."""
        return self.identity.engine == "packed"

    def folder(self) -> str:
        """Path below the store: readable, and unique through the key."""
        radius = show_eps(self.eps).replace("/", "-")
        return f"{safe_name(self.dataset)}/{slug(self.source.label)}/{slug(self.attack)}@{radius}-{self.key()[:16]}"

    def shards(self, examples: int) -> range:
        """Indices of the shards that hold the first `examples` test images (0: all)."""
        wanted = min(examples or self.examples, self.examples)
        return range(-(-wanted // SHARD))

    def images_of(self, shard: int) -> range:
        """Test-set indices of one shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.examples))


def engine_for(entry: AttackEntry | None, chosen: str) -> str:
    """The engine that computes an attack: only those of signed-gradient steps can be packed."""
    return chosen if entry is not None and entry.traits.ascent else "reference"

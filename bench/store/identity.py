"""What determines a cell's outcomes, as one typed record; its hash is the cell's key."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bench.system.canonical import canonical

SCHEMA = 1
ENGINES = {"reference": 2, "packed": 2}  # how outcomes are computed (bench.evaluation), and the version of each


@dataclass(frozen=True)
class ModelIdentity:
    """A trained model: architecture with the version of its code and all options, weights' hash, normalisation.

    `mean` and `std` are per channel, of pixels in [0, 1]; a key of ours always has them, a foreign one may not.
    """

    architecture: str
    implementation: str
    options: Mapping[str, Any]
    weights: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "implementation": self.implementation,
            **({} if self.mean is None else {"mean": [*self.mean]}),
            "options": dict(self.options),
            **({} if self.std is None else {"std": [*self.std]}),
            "weights": self.weights,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "ModelIdentity":
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for other content."""
        mean, std = content.get("mean"), content.get("std")
        return ModelIdentity(
            architecture=_text(content["architecture"]),
            implementation=_text(content["implementation"]),
            options=dict(content["options"]),
            weights=_text(content["weights"]),
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
        )


@dataclass(frozen=True)
class CellIdentity:
    """Everything that determines a cell's outcomes. Nothing of order, time or place; of the device its class alone.

    How a packed cell rounds depends on what was computed with it; that is not part of the key either.

    Attributes:
        dataset, test_hash: the data set's name, and the hash of its test images and labels.
        attack_options: all options, resolved.
        eps: radius as a fraction of the pixel range.
        seed: of the attack.
        engine, engine_version, batch: `packed` or `reference`, its version, images per batch.
        twin: the undefended twin, where the attack starts from one.
        chain: the smaller radii a nested cell goes on from, ascending; None for a cell that is not nested.
    """

    model: ModelIdentity
    dataset: str
    test_hash: str
    protocol: str
    protocol_implementation: str
    attack: str
    attack_implementation: str
    attack_options: Mapping[str, Any]
    eps: Fraction
    seed: int
    device: str
    engine: str
    engine_version: int
    batch: int
    twin: ModelIdentity | None = None
    chain: tuple[Fraction, ...] | None = None
    split: str = "test"
    dtype: str = "float32"
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """As `key.json` holds it, names in alphabetical order."""
        return {
            "attack": {
                "implementation": self.attack_implementation,
                "name": self.attack,
                "options": dict(self.attack_options),
            },
            **({} if self.chain is None else {"chain": [str(eps) for eps in self.chain]}),
            "data": {"hash": self.test_hash, "name": self.dataset, "split": self.split},
            "device": self.device,
            "dtype": self.dtype,
            "engine": {"batch": self.batch, "name": self.engine, "version": self.engine_version},
            "eps": str(self.eps),
            "model": self.model.to_json(),
            "protocol": {"implementation": self.protocol_implementation, "name": self.protocol},
            "schema": self.schema,
            "seed": self.seed,
            **({} if self.twin is None else {"twin": self.twin.to_json()}),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "CellIdentity":
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for other content."""
        attack, data, engine, protocol = (content[name] for name in ("attack", "data", "engine", "protocol"))
        twin, chain = content.get("twin"), content.get("chain")
        return CellIdentity(
            model=ModelIdentity.from_json(content["model"]),
            dataset=_text(data["name"]),
            test_hash=_text(data["hash"]),
            protocol=_text(protocol["name"]),
            protocol_implementation=_text(protocol["implementation"]),
            attack=_text(attack["name"]),
            attack_implementation=_text(attack["implementation"]),
            attack_options=dict(attack["options"]),
            eps=Fraction(content["eps"]),
            seed=int(content["seed"]),
            device=_text(content["device"]),
            engine=_text(engine["name"]),
            engine_version=engine["version"],
            batch=int(engine["batch"]),
            twin=None if twin is None else ModelIdentity.from_json(twin),
            chain=None if chain is None else tuple(Fraction(eps) for eps in chain),
            split=_text(data["split"]),
            dtype=_text(content["dtype"]),
            schema=content["schema"],
        )

    def key(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical(self.to_json()).encode()).hexdigest()

    def place(self) -> str:
        """The model, data and device alone: cells that share it show the same network on the same images."""
        whole = self.to_json()
        return canonical([whole[name] for name in ("model", "data", "device")])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value

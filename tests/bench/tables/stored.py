"""Cells of made-up outcomes in a store, complete with key and manifest."""

from fractions import Fraction
from typing import Any

import numpy as np

from bench.evaluation.budget import Budget
from bench.registry import attack as attacks
from bench.registry import protocol as protocols
from bench.store.cells import Cell, Source
from bench.store.identity import ENGINES, CellIdentity, ModelIdentity
from bench.store.store import Store

N = 300  # images of a made-up test set, all of class 1; the last 10 are misclassified when clean
WRONG = 10


def store_cell(
    store: Store,
    attack: str,
    eps: Fraction,
    adversarial: Any,
    *,
    label: str = "deq",
    weights: str = "a",
    dataset: str = "digits",
    protocol: str = "paper",
    certified: Any = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch: int = 250,
    examples: int = N,
    engine: str = "reference",
    chain: list[str] | None = None,
) -> dict[str, Any]:
    """Store one cell, of all N images unless told otherwise, and return its identity.

    Args:
        adversarial: predictions under attack, (N,).
        certified: for a certificate's cell, which images are proven, (N,).
        options: of the attack; None: the protocol's.
        seed, device, batch, engine, chain: part of the identity.
        examples: how many are stored.
    """
    planned = protocols[protocol].target(eps) if protocol in protocols else {}
    if options is None:
        given = planned.get(attack, {})
        options = attacks[attack].resolve(given) if attack in attacks else given
    identity = CellIdentity(
        model=ModelIdentity("deq", "1", {}, weights), dataset=dataset, test_hash="h", protocol=protocol,
        protocol_implementation="1", attack=attack, attack_implementation="1", attack_options=options, eps=eps,
        seed=seed, device=device, engine=engine, engine_version=ENGINES[engine], batch=batch,
        chain=None if chain is None else tuple(map(Fraction, chain)),
    )  # fmt: skip
    cell = Cell(Source(label, "deq", {}, "", 0), identity, examples, attack)
    clean = np.ones(N, np.int32)
    clean[-WRONG:] = 0
    for shard in cell.shards(0):
        rows = cell.images_of(shard)
        part = slice(rows.start, rows.stop)
        columns = {
            "index": np.asarray(rows, np.int32), "label": np.ones(len(rows), np.int32), "clean": clean[part],
            "adversarial": adversarial[part], "broken": (clean[part] == 1) & (adversarial[part] != 1),
            "linf": np.zeros(len(rows), np.float32), "residual": np.zeros(len(rows), np.float32),
        }  # fmt: skip
        if certified is not None:
            columns["certified"] = certified[part]
        lock = store.claim(cell, shard)
        assert lock
        store.write(cell, shard, columns, Budget(forwards=1))
        store.release(lock)
    store.finish(cell, 0, {"arguments": ["run"], "resolved": {}})
    return identity.to_json()

"""The worst case against brute force on made-up outcomes, and which cells it may be made of."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.registry import attack as attacks
from bench.store.store import Store
from bench.store.stored_cells import inventory
from bench.tables.worst_case import unreduced, worst_cases
from tests.bench.tables.stored import WRONG, N, store_cell

RADII = [Fraction(2, 255), Fraction(4, 255), Fraction(8, 255)]
NOBODY, EVERYBODY = np.zeros(N, np.int32), np.ones(N, np.int32)  # predictions: right on none, right on all


def strong(store: Store, eps: Fraction, adversarial: Any = EVERYBODY, **fields: Any) -> None:
    store_cell(store, "autoattack", eps, adversarial, protocol="standard", **fields)


@pytest.mark.parametrize("examples", [0, 120])
def test_against_brute_force(tmp_path: Path, examples: int) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    predicted = {(a, e): (rng.random(N) > 0.3).astype(np.int32) for a in ("ifgsm", "pgd", "strong") for e in RADII}
    for (attack, eps), adversarial in predicted.items():
        strong(store, eps, adversarial) if attack == "strong" else store_cell(store, attack, eps, adversarial)
    stored, n = inventory(store)[0], examples or N
    found = worst_cases(stored[0].cell, stored, examples)
    standing = {i for i in range(n) if i < N - WRONG}
    for number, eps in enumerate(RADII):
        for attack in ("ifgsm", "pgd", "strong"):
            standing -= {i for i in standing if predicted[attack, eps][i] != 1}
        assert (found[eps].share.hits, found[eps].share.n) == (len(standing), n)
        assert len(found[eps].cells) == 3 * (number + 1)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "b"},
        {"dataset": "mnist"},
        {"seed": 1},
        {"device": "cuda"},
        {"protocol": "paper-normalized"},
        {"protocol": "of-a-plugin"},
    ],
)
def test_what_measures_something_else_does_not_count(tmp_path: Path, other: dict[str, Any]) -> None:
    store = Store(tmp_path)
    strong(store, RADII[1])
    store_cell(store, "pgd", RADII[0], NOBODY, **other)
    stored = inventory(store)[0]
    own = next(one for one in stored if one.cell.attack == "autoattack")
    found = worst_cases(own.cell, stored, 0)
    assert list(found) == [RADII[1]] and found[RADII[1]].cells == (own,)
    assert found[RADII[1]].share.hits == N - WRONG


def test_certificates_and_larger_radii_do_not_count_but_other_batches_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    strong(store, RADII[1])
    none = np.zeros(N, bool)
    store_cell(store, "certificate", RADII[1], NOBODY, protocol="certificate", certified=none)
    store_cell(store, "pgd", RADII[2], NOBODY)
    stored = inventory(store)[0]
    assert worst_cases(stored[0].cell, stored, 0)[RADII[1]].share.hits == N - WRONG
    store_cell(store, "pgd", RADII[0], NOBODY, batch=50)
    stored = inventory(store)[0]
    assert worst_cases(stored[0].cell, stored, 0)[RADII[1]].share.hits == 0


def test_the_images_are_those_of_every_cell_at_the_radius_and_below(tmp_path: Path) -> None:
    store = Store(tmp_path)
    strong(store, RADII[0])
    strong(store, RADII[1])
    store_cell(store, "pgd", RADII[1], EVERYBODY, examples=250)
    stored = inventory(store)[0]
    found = worst_cases(stored[0].cell, stored, 0)
    assert [found[eps].share.n for eps in RADII[:2]] == [N, 250]
    whole = worst_cases(stored[0].cell, stored, N)[RADII[1]]
    assert whole.share.n == N and len(whole.cells) == 2, "cells with fewer images than asked for are left out"
    assert worst_cases(stored[0].cell, stored, N + 1) == {}


@pytest.mark.parametrize(
    ("attack", "protocol", "options", "expected"),
    [
        ("adaptive", "adaptive", None, True),
        ("autoattack", "standard", None, True),
        ("pgd", "paper", None, False),
        ("pgd", "adaptive", None, False),
        ("adaptive", "adaptive", {"members": "square", "queries": 1}, False),
        ("autoattack", "standard", {"engine": "reference"}, True),
        ("autoattack", "standard", {"targets": 8}, False),
    ],
)
def test_only_a_strong_protocol_as_it_stands_is_unreduced(
    tmp_path: Path, attack: str, protocol: str, options: dict[str, Any] | None, expected: bool
) -> None:
    given = attacks[attack].resolve(options) if options else None
    store_cell(Store(tmp_path), attack, RADII[0], EVERYBODY, protocol=protocol, options=given)
    (stored,) = inventory(Store(tmp_path))[0]
    assert unreduced(stored.cell) is expected
    assert bool(worst_cases(stored.cell, [stored], 0)) is expected

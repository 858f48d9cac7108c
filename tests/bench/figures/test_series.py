"""Series against brute force on made-up outcomes."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.figures.series import make_series
from bench.store.store import Store
from bench.store.stored_cells import StoredCell, inventory
from tests.bench.tables.stored import N, store_cell

RADII = [Fraction(2, 255), Fraction(4, 255), Fraction(8, 255)]


@pytest.fixture
def store(tmp_path: Path) -> tuple[Store, dict[tuple[str, Fraction], Any]]:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    predictions = {(a, e): (rng.random(N) > 0.3).astype(np.int32) for a in ("ifgsm", "pgd") for e in RADII}
    for (attack, eps), adversarial in predictions.items():
        store_cell(store, attack, eps, adversarial, weights="a")
    return store, predictions


def test_the_inventory_is_what_was_stored(store: tuple[Store, dict[tuple[str, Fraction], Any]]) -> None:
    stored, problems = inventory(store[0])
    assert not problems and len(stored) == 6
    for one in stored:
        assert one.cell.examples == N and one.label == "deq"
        assert np.array_equal(one.outcomes["adversarial"], store[1][one.cell.attack, one.cell.eps])


def test_the_same_cell_under_two_names_counts_once(store: tuple[Store, dict[tuple[str, Fraction], Any]]) -> None:
    first = next(iter(store[0].folder.glob("digits/deq/pgd@2-255-*")))
    other = first.parent.parent / "renamed" / first.name
    other.parent.mkdir()
    other.mkdir()
    for file in first.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert len(inventory(store[0])[0]) == 6


def test_a_damaged_cell_is_told_and_the_others_stand(store: tuple[Store, dict[tuple[str, Fraction], Any]]) -> None:
    next(iter(store[0].folder.glob("*/*/*/key.json"))).write_text('{"schema": 1}')
    stored, problems = inventory(store[0])
    assert len(stored) == 5 and len(problems) == 1 and "key.json" not in problems[0] and "'attack'" in problems[0]


@pytest.mark.parametrize("examples", [0, 120])
def test_shares(store: tuple[Store, dict[tuple[str, Fraction], Any]], examples: int) -> None:
    stored, predictions = inventory(store[0])[0], store[1]
    n = examples or N
    right = np.arange(n) < N - 10
    found = {one.attack: one for one in make_series(stored, examples)}
    for eps in RADII:
        for attack, label in (("ifgsm", "I-FGSM"), ("pgd", "PGD")):
            share = next(s for name, s in found.items() if name.startswith(label)).points[eps]
            assert (share.hits, share.n) == (int((right & (predictions[attack, eps][:n] == 1)).sum()), n)


def test_models_are_told_apart_by_their_weights(store: tuple[Store, dict[tuple[str, Fraction], Any]]) -> None:
    store_cell(store[0], "pgd", RADII[0], np.ones(N, np.int32), label="deq-2", weights="b")
    series = make_series(inventory(store[0])[0], 0)
    assert sorted(one.model for one in series) == ["deq", "deq", "deq-2"]
    assert all(isinstance(one, StoredCell) for s in series for one in s.cells.values())


@pytest.mark.parametrize("other", [{"device": "cuda"}, {"batch": 50}])
def test_devices_and_batches_do_not_overwrite_each_other(tmp_path: Path, other: dict[str, Any]) -> None:
    store_cell(Store(tmp_path), "pgd", RADII[0], np.ones(N, np.int32))
    store_cell(Store(tmp_path), "pgd", RADII[0], np.zeros(N, np.int32), **other)
    series = make_series(inventory(Store(tmp_path))[0], 0)
    assert sorted(one.points[RADII[0]].hits for one in series) == [0, N - 10]


def test_cells_with_too_few_images_are_left_out(store: tuple[Store, dict[tuple[str, Fraction], Any]]) -> None:
    assert make_series(inventory(store[0])[0], N + 1) == []

"""Which shards of which cells are computed together."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.execution.matrix_rows import Matrix, PlannedRow, ReadyRow
from bench.execution.tasks import TOGETHER, _pieces, row_tasks
from bench.settings.config import Config
from bench.store.cells import Cell


class Named(SimpleNamespace):
    def key(self) -> str:
        return str(self.name)


def cell(**facts: object) -> Cell:
    """With the facts that a test needs."""
    return cast(Cell, Named(**facts))


A, B = cell(name="a"), cell(name="b")
GROUP = [A, B]


def test_shards_go_together_where_larger_batches_pay_and_every_worker_has_a_task() -> None:
    missing = {"a": list(range(10)), "b": list(range(10))}
    whole = (A, B)
    assert _pieces(GROUP, missing, larger=False, workers=1) == [(whole, (k,)) for k in range(10)]
    assert _pieces(GROUP, missing, larger=True, workers=1) == [
        (whole, (0, 1, 2, 3)),
        (whole, (4, 5, 6, 7)),
        (whole, (8, 9)),
    ]
    assert [shards for _, shards in _pieces(GROUP, missing, larger=True, workers=5)] == [
        (0, 1), (2, 3), (4, 5), (6, 7), (8, 9)
    ]  # fmt: skip
    assert len(_pieces(GROUP, {"a": [0], "b": [0]}, larger=True, workers=16)) == 1
    assert TOGETHER == 4


def test_only_shards_that_lack_the_same_cells_go_together() -> None:
    missing = {"a": [0, 1, 2, 5], "b": [1, 2, 3]}
    found = _pieces(GROUP, missing, larger=True, workers=1)
    assert found == [((A,), (0,)), ((A, B), (1, 2)), ((B,), (3,)), ((A,), (5,))]


def test_a_cell_on_its_own_is_filed_shard_by_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the packed cells beside it do: a cascade of hours gains nothing from the company."""

    def of(name: str, packed: bool) -> Cell:
        return cell(
            name=name,
            packed=packed,
            attack=name,
            eps=1,
            smaller=None,
            attack_label=name,
            images_of=lambda _: range(250),
        )

    cells = [of("fgsm", True), of("pgd", True), of("autoattack", False)]
    store: Any = SimpleNamespace(missing=lambda *_: [0, 1, 2, 3])
    monkeypatch.setattr("bench.execution.tasks._predict", lambda *_: ({}, 8 * config.run.batch_size))
    job: Any = SimpleNamespace(pretrained=True)
    attack: Any = None
    row = ReadyRow(PlannedRow("deq", "digits", job), tuple((attack, one) for one in cells), (), "")
    tasks, _ = row_tasks(row, Matrix({}, (), (), ()), config, "cpu", store, 1)
    found = [([one.attack for one in task.cells], task.shards) for task in tasks]
    assert found == [(["fgsm", "pgd"], (0, 1, 2, 3)), *((["autoattack"], (shard,)) for shard in range(4))]

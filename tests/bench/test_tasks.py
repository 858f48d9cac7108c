"""Which shards of which cells are computed together."""

from types import SimpleNamespace
from typing import Any

from bench.tasks import TOGETHER, _pieces


class Cell(SimpleNamespace):
    def key(self) -> str:
        return str(self.name)


A, B = Cell(name="a"), Cell(name="b")
GROUP: Any = [A, B]


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

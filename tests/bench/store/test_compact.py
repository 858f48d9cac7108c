"""One file of outcomes per cell: everything reads the same, runs go on, and damage is told."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import Outcomes, same_outcomes
from bench.store.parquet import write_together
from bench.store.store import Store
from bench.store.stored_cells import inventory
from bench.system.files import write_json
from tests.bench.helpers import Inside, last_line, leftovers

RUN = ("run", "--models", "fc-linear", "--eps", "8", "--epochs", "1", "--workers", "1", "--format", "csv")


def singles(folder: Path) -> list[Path]:
    return sorted((folder / "results/store").rglob("shard-*.parquet"))


def test_a_compact_store_reads_the_same_and_goes_on(tmp_path: Path, inside: Inside) -> None:
    short = inside(tmp_path, *RUN, "--examples", "250").stdout
    assert len(singles(tmp_path)) == 2
    assert "2 complete cells" in inside(tmp_path, "compact").stdout and not singles(tmp_path)
    assert inside(tmp_path, *RUN, "--examples", "250").stdout == short and not singles(tmp_path)

    whole = inside(tmp_path, *RUN).stdout
    assert [path.name for path in singles(tmp_path)] == ["shard-00001.parquet"] * 2, "only what was missing"
    assert whole != short
    assert "2 files of single shards" in inside(tmp_path, "compact").stdout and not singles(tmp_path)
    assert inside(tmp_path, *RUN).stdout == whole
    for path in (tmp_path / "results/store").rglob("shards.parquet"):
        with pq.ParquetFile(path) as file:
            assert file.num_row_groups == 2 and file.metadata.num_rows == 359
    assert "0 files of single shards" in inside(tmp_path, "compact").stdout
    done = inside(tmp_path, "reproduce", "--cells", "2", "--examples", "200")
    assert done.stdout.count("200 of 200 alike") + done.stdout.count("109 of 109 alike") == 2


def test_a_new_single_shard_counts_before_the_file_for_all(tmp_path: Path, inside: Inside) -> None:
    whole = inside(tmp_path, *RUN).stdout
    path = singles(tmp_path)[0]
    kept = path.read_bytes()
    inside(tmp_path, "compact")
    path.write_bytes(b"no parquet")
    done = inside(tmp_path, *RUN, code=2)
    assert "is damaged" in last_line(done) and path.name in last_line(done)
    path.write_bytes(kept)
    assert inside(tmp_path, *RUN).stdout == whole


def test_a_damaged_file_is_told_and_an_incomplete_cell_left_alone(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, *RUN)
    path = singles(tmp_path)[0]
    (path.parent / "manifest.json").unlink()
    assert "1 complete cells" in inside(tmp_path, "compact").stdout and len(singles(tmp_path)) == 2
    together = next((tmp_path / "results/store").rglob("shards.parquet"))
    together.write_bytes(together.read_bytes()[:-40])
    done = inside(tmp_path, *RUN, code=2)
    assert f"{together.name} are damaged" in last_line(done) and "delete the file and run again" in last_line(done)


def test_a_damaged_shard_keeps_no_other_cell_from_being_put_together(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, *RUN)
    first, *others = singles(tmp_path)
    first.write_bytes(b"no parquet")
    done = inside(tmp_path, "compact", code=2)
    assert "2 files of single shards" in done.stdout and "is damaged" in last_line(done)
    assert singles(tmp_path) == [first, others[0]]


def test_single_files_that_another_process_takes_away_are_no_loss(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(tmp_path, *RUN)
    store = Store(tmp_path / "results/store")
    cell, other = (one.cell for one in inventory(store)[0])
    single, looked, before = store.shard_path(cell, 0), Path.exists, store.read(cell, 0)

    def then_gone(path: Path) -> bool:
        there = looked(path)
        if there and path == single:
            store.compact(cell) if looked(store.shard_path(cell, 1)) else path.unlink()
        return there

    store.compact(cell)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", then_gone)
        asked: list[Callable[[], bool]] = [
            lambda: same_outcomes(store.read(cell, 0)[0], before[0]),
            lambda: store.has(cell, 0),
        ]
        for ask in asked:
            store.write(cell, 0, *before)
            assert ask() and not looked(single)

    def meanwhile(path: Path, shards: Sequence[tuple[Outcomes, Budget]]) -> None:
        assert store.compact(other) == 0, "left to whoever is at it"
        write_together(path, shards)
        store.shard_path(other, 1).unlink()

    monkeypatch.setattr("bench.store.store.write_together", meanwhile)
    assert store.compact(other) == 2 and store.outcomes(other, 0) is not None
    assert not leftovers(store.folder)


def test_shards_with_columns_in_another_order_go_together(tmp_path: Path, inside: Inside) -> None:
    """A shard from before cascades has no `broken_by`; read, it comes last."""
    inside(tmp_path, *RUN)
    store = Store(tmp_path / "results/store")
    cell = inventory(store)[0][0].cell
    outcomes, budget = store.read(cell, 1)
    store.write(cell, 1, {name: column for name, column in outcomes.items() if name != "broken_by"}, budget)
    assert store.compact(cell) == 2
    assert same_outcomes(store.read(cell, 1)[0], outcomes)


def test_what_a_shorter_manifest_does_not_name_stays(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, *RUN)
    store = Store(tmp_path / "results/store")
    cell = inventory(store)[0][0].cell
    first = store.read(cell, 0)
    store.compact(cell)
    store.write(cell, 0, *first)
    (store.cell_folder(cell) / "manifest.json").unlink()
    store.finish(cell, 100, {})
    assert store.compact(cell) == 0 and store.has(cell, 1)


def test_a_manifest_that_says_nonsense_vouches_for_nothing(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, *RUN)
    store = Store(tmp_path / "results/store")
    cell = inventory(store)[0][0].cell
    write_json(
        store.cell_folder(cell) / "manifest.json", {"label": "deq", "train_seed": 0, "examples": 359, "shards": "x"}
    )
    assert inside(tmp_path, "compact").returncode == 0
    assert store.manifest(cell) is None and store.has(cell, 1) and not store.together_path(cell).exists()
    inside(tmp_path, *RUN)
    assert store.complete(cell, 0)

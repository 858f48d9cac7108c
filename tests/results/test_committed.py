"""What is committed under results/ comes out again. Takes the real data; skips without."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.store.cells import SHARD
from bench.store.store import Store
from bench.store.stored_cells import inventory
from tests.bench.helpers import Inside
from tests.conftest import ROOT

STORE, CHECKPOINTS = ROOT / "results/store", ROOT / "results/checkpoints"


def reproduce(inside: Inside, folder: Path, store: Path, data: Path, code: int = 0, cells: int = 5) -> str:
    where = ["--store", str(store), "--checkpoints", str(CHECKPOINTS), "--data-dir", str(data)]
    done = inside(
        folder, "reproduce", "--cells", str(cells), "--examples", "200", "--minutes", "0.5", *where, code=code
    )
    return done.stdout + done.stderr


def test_every_committed_cell_can_be_read() -> None:
    held, problems = inventory(Store(STORE))
    assert not problems
    assert {one.cell.dataset for one in held} >= {"mnist"} and len(held) > 50
    for one in held:
        assert len(one.outcomes["label"]) == one.cell.examples


def test_five_cells_at_random_come_out_again(real_data: Path, inside: Inside, tmp_path: Path) -> None:
    shown = reproduce(inside, tmp_path, STORE, real_data)
    assert shown.count("200 of 200 alike") + shown.count("199 of 200 alike") + shown.count("198 of 200 alike") == 5


def test_an_altered_cell_is_found(real_data: Path, inside: Inside, tmp_path: Path) -> None:
    cell = next(one for one in inventory(Store(STORE))[0] if one.label == "deq" and one.cell.attack == "ifgsm")
    folder = cell.store.cell_folder(cell.cell)
    copy = tmp_path / "store" / folder.relative_to(STORE)
    shutil.copytree(folder, copy)
    for path in copy.glob("shard*.parquet"):
        table = pq.read_table(path)
        flipped = [not value if row % SHARD < 5 else value for row, value in enumerate(table["broken"].to_pylist())]
        altered = table.set_column(table.column_names.index("broken"), "broken", pa.array(flipped))
        pq.write_table(altered.replace_schema_metadata(table.schema.metadata), path, row_group_size=SHARD)
    shown = reproduce(inside, tmp_path, tmp_path / "store", real_data, code=2, cells=1)
    assert "195 of 200 alike" in shown and "come out as stored: deq I-FGSM" in shown


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_committed_checkpoints_are_small_and_whole(suffix: str) -> None:
    paths = sorted(CHECKPOINTS.glob("*/*.safetensors"))
    assert paths
    for path in paths:
        assert path.with_suffix(suffix).exists() and path.stat().st_size < 5e6

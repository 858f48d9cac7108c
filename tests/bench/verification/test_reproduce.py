"""`bench reproduce`: stored numbers come out again, altered ones do not, and what cannot be computed says why."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench.helpers import Inside, bench

CHAIN = "adaptive[members=apgd-ce+twin,iterations=4]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with plain, nested and certified cells."""
    folder = tmp_path_factory.mktemp("reproduce")
    bench(folder, "run", "--models", "fc-linear", "--epochs", "2", "--eps", "4,16")
    nested = ["--protocol", "adaptive", "--attacks", CHAIN, "--eps", "4,16"]
    bench(folder, "run", "--models", "deq", "--epochs", "1", *nested)
    bench(folder, "run", "--models", "ibp-mondeq[eps=0.05,width=16]", "--epochs", "2", "--eps", "4")
    return folder


def test_everything_comes_out_again(folder: Path, inside: Inside) -> None:
    shown = inside(folder, "reproduce", "--cells", "99", "--examples", "250").stdout
    assert shown.count(" ok") == 4 + 2 + 4 and "FAIL" not in shown and "not computed" not in shown
    assert "250 of 250 alike" in shown and "adaptive" in shown and "certificate" in shown


def test_cells_are_drawn_by_the_seed(folder: Path, inside: Inside) -> None:
    def drawn(seed: str) -> list[str]:
        lines = inside(folder, "reproduce", "--cells", "2", "--examples", "50", "--seed", seed).stdout.splitlines()
        return lines[2:4]

    assert drawn("1") == drawn("1")
    assert len({tuple(drawn(seed)) for seed in "1234"}) > 1


def test_models_and_data_sets_can_be_asked_for(folder: Path, inside: Inside) -> None:
    shown = inside(folder, "reproduce", "--cells", "99", "--examples", "9", "--models", "ibp-mondeq").stdout
    assert shown.count(" ok") == 4 and "4 of 10 cells in the store were asked for" in shown
    shown = inside(folder, "reproduce", "--cells", "99", "--examples", "9", "--dataset", "digits").stdout
    assert shown.count(" ok") == 10 and "\n10 cells in the store" in shown
    done = inside(folder, "reproduce", "--models", "lyadeq", code=2)
    assert "unknown model in the store 'lyadeq': did you mean 'deq'?" in done.stderr
    done = inside(folder, "reproduce", "--dataset", "mnist", code=2)
    assert "unknown data set in the store 'mnist': there is digits" in done.stderr


def test_one_altered_shard_is_found(folder: Path, inside: Inside) -> None:
    for path in folder.glob("results/store/digits/fc-linear*/pgd@16-*/shard-*.parquet"):
        table = pq.read_table(path)
        flipped = [not value if row < 10 else value for row, value in enumerate(table["broken"].to_pylist())]
        broken = table.set_column(table.column_names.index("broken"), "broken", pa.array(flipped))
        pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
    done = inside(folder, "reproduce", "--cells", "99", code=2)
    assert "fewer than 99% of the images come out as stored: fc-linear PGD at 16/255." in done.stderr
    assert done.stdout.count("FAIL") == 1


def test_what_cannot_be_computed_says_why(folder: Path, inside: Inside, tmp_path: Path) -> None:
    store = str(folder / "results/store")
    done = inside(tmp_path, "reproduce", "--store", store, "--cells", "2", code=2)
    assert "not computed (1)" in done.stdout
    assert "\n(1) no checkpoint in results/checkpoints/digits has its weights" in done.stdout
    assert "none of the chosen cells could be computed here" in done.stderr
    done = inside(tmp_path, "reproduce", "--store", store, "--minutes", "0", code=2)
    assert "no complete cell of at most 0 min" in done.stderr

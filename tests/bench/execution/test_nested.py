"""The worst case over ε: nested radii, each going on from the next smaller."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.bench.helpers import Inside, bench

ATTACK = "adaptive[members=apgd-ce+apgd-margin+twin,iterations=8]"
ARGUMENTS = ["run", "--protocol", "adaptive", "--attacks", ATTACK, "--models", "deq", "--epochs", "2"]


def broken(store: Path) -> dict[str, list[dict[str, object]]]:
    """Rows of every cell, by radius."""
    found: dict[str, list[dict[str, object]]] = {}
    for path in sorted(store.glob("digits/deq*/adaptive@*/shard-*.parquet")):
        radius = path.parent.name.split("@")[1].rsplit("-", 1)[0]
        found.setdefault(radius, []).extend(pq.read_table(path).to_pylist())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store filled in one go, with its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    bench(folder, *ARGUMENTS, "--eps", "24,8,16", "--workers", "1")
    return folder


def test_monotone_by_construction(whole: Path) -> None:
    by_eps = broken(whole / "results/store")
    assert set(by_eps) == {"8-255", "16-255", "24-255"}
    previous = [False] * 359
    for radius in ("8-255", "16-255", "24-255"):
        now = [bool(row["broken"]) for row in by_eps[radius]]
        assert len(now) == 359 and sum(now) > sum(previous)
        assert all(after for before, after in zip(previous, now, strict=True) if before)
        previous = now


def test_the_table_says_who_broke_how_many(whole: Path, inside: Inside) -> None:
    printed = inside(whole, *ARGUMENTS, "--eps", "8,16,24").stdout
    by_eps = broken(whole / "results/store")
    lines = printed[printed.index("Broken first by") :].splitlines()
    assert lines[0].split()[-3:] == ["apgd-ce", "apgd-margin", "twin"]
    for line, radius in zip(lines[1:4], ("8-255", "16-255", "24-255"), strict=True):
        wanted = [sum(row["broken_by"] == k for row in by_eps[radius]) for k in range(3)]
        assert [int(count) for count in line.split()[-3:]] == wanted and sum(wanted) > 0


def test_resumed_and_in_two_processes_it_gives_the_same_bits(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    common = [*ARGUMENTS, "--store", str(store), "--checkpoints", str(whole / "results/checkpoints")]
    bench(tmp_path, *common, "--eps", "8,16,24", "--examples", "10", "--workers", "1")
    next(store.glob("digits/deq*/adaptive@24-*/shard-00000.parquet")).unlink()
    bench(tmp_path, *common, "--eps", "8,16,24", "--workers", "2")
    assert broken(store) == broken(whole / "results/store")


def test_another_chain_is_another_cell(whole: Path, inside: Inside) -> None:
    before = set((whole / "results/store").glob("digits/deq*/adaptive@24-*"))
    inside(whole, *ARGUMENTS, "--eps", "24", "--examples", "10")
    assert len(set((whole / "results/store").glob("digits/deq*/adaptive@24-*")) - before) == 1


def test_a_missing_image_file_is_one_clear_line(whole: Path, inside: Inside, tmp_path: Path) -> None:
    store = tmp_path / "store"
    common = [*ARGUMENTS, "--store", str(store), "--checkpoints", str(whole / "results/checkpoints")]
    inside(tmp_path, *common, "--eps", "8", "--examples", "10")
    next(store.glob("digits/deq*/adaptive@8-*/shard-00000.images.safetensors")).unlink()
    done = inside(tmp_path, *common, "--eps", "8,16", "--examples", "10", code=2)
    assert "shard-00000.images.safetensors are missing" in done.stderr and "--keep-adversarial" in done.stderr

"""The harness as a user runs it: resumption, two at once, keys, workers."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.bench.helpers import Inside, bench, cell_folders, command, environment, last_line, leftovers, store_content

# The engine that promises the same bits, whatever was computed before; test_packed_engine.py has the other one.
MATRIX = ("--models", "deq,fc-linear", "--eps", "2,8", "--epochs", "3", "--engine", "reference")
SHARDS = 2 * 2 * 2 * 2  # models × attacks × radii × shards of digits' test set


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the matrix ran once, undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    bench(folder, "run", *MATRIX)
    assert len(store_content(folder / "results/store")) == SHARDS
    return folder


@pytest.fixture
def fresh(done: Path, tmp_path: Path) -> Path:
    """A folder with the same checkpoints and an empty store."""
    shutil.copytree(done / "results/checkpoints", tmp_path / "results/checkpoints")
    return tmp_path


def test_the_same_command_answers_from_the_store(done: Path, inside: Inside) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (done / "results/store").rglob("*") if path.is_file()}
    first, again = inside(done, "run", *MATRIX), inside(done, "run", *MATRIX)
    assert first.stdout == again.stdout and "attack" not in again.stderr and "training" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (done / "results/store").rglob("*") if path.is_file()} == stamps
    assert inside(done, "table", *MATRIX).stdout == first.stdout


def test_killed_at_any_moment_it_goes_on(done: Path, fresh: Path) -> None:
    """SIGKILL to the command-line process at five random moments, then the command again."""
    reference = store_content(done / "results/store")
    random.seed(0)
    killed = 0
    for _ in range(40):
        process = subprocess.Popen(
            command("run", *MATRIX), cwd=fresh, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Wait for work to begin, then strike while it goes on.
        before = len(list((fresh / "results").rglob("*.parquet")))
        while process.poll() is None and len(list((fresh / "results").rglob("*.parquet"))) <= before:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.02))  # a shard takes a tenth of a second
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if killed == 5 or len(store_content(fresh / "results/store")) == SHARDS:
            break
    assert killed >= 3 and len(store_content(fresh / "results/store")) > 0
    bench(fresh, "run", *MATRIX)
    assert store_content(fresh / "results/store") == reference
    assert [f.name for f in cell_folders(fresh / "results/store")] == [
        f.name for f in cell_folders(done / "results/store")
    ]
    assert all((folder / "manifest.json").exists() for folder in cell_folders(fresh / "results/store"))


def test_two_at_once_share_the_work(done: Path, fresh: Path) -> None:
    both = [
        subprocess.Popen(
            command("run", *MATRIX, "--workers", "1"), cwd=fresh, env=environment(), stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert store_content(fresh / "results/store") == store_content(done / "results/store")
    assert not leftovers(fresh / "results/store")


@pytest.mark.parametrize(
    "options", [("--workers", "3"), ("--workers", "1", "--models", "fc-linear,deq", "--eps", "8,2")]
)
def test_bits_do_not_depend_on_workers_or_order(done: Path, fresh: Path, options: tuple[str, ...]) -> None:
    bench(fresh, "run", *MATRIX, *options)
    assert store_content(fresh / "results/store") == store_content(done / "results/store")


def test_examples_select_shards_and_never_cut_them(done: Path, fresh: Path, inside: Inside) -> None:
    small = inside(fresh, "run", *MATRIX, "--examples", "100")
    reference, found = store_content(done / "results/store"), store_content(fresh / "results/store")
    assert len(found) == SHARDS // 2
    assert all(reference[name] == content for name, content in found.items())
    assert " 100 " in small.stdout
    inside(fresh, "run", *MATRIX)
    assert store_content(fresh / "results/store") == reference


CHANGES = [
    ("--models", "deq[tol=1e-5]"),
    ("--models", "deq[gradient=implicit]"),
    ("--models", "deq[solver=broyden]"),
    ("--models", "deq[max_iter=20]"),
    ("--models", "deq[fallback=none]"),
    ("--seed", "1"),
    ("--batch-size", "50"),
    ("--engine", "packed"),
    ("--attacks", "ifgsm[steps=3],pgd[steps=3]"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_an_option_that_matters_never_answers_from_an_old_cell(
    done: Path, tmp_path: Path, change: tuple[str, str], inside: Inside
) -> None:
    shutil.copytree(done / "results", tmp_path / "results")
    before = set(cell_folders(tmp_path / "results/store"))
    base = {
        "--models": "deq",
        "--eps": "8",
        "--epochs": "3",
        "--examples": "1",
        "--engine": "reference",
        change[0]: change[1],
    }
    inside(tmp_path, "run", *(part for item in base.items() for part in item), "--no-train")
    new = set(cell_folders(tmp_path / "results/store")) - before
    assert len(new) == 2, "I-FGSM and PGD each make a cell of their own"


def test_a_readout_is_a_model_of_its_own(tmp_path: Path, inside: Inside) -> None:
    options = ("--eps", "8", "--epochs", "1", "--examples", "1", "--attacks", "ifgsm")
    inside(tmp_path, "run", "--models", "lyadeq,lyadeq[readout=step],lyadeq[alpha=0.5]", *options)
    assert len(cell_folders(tmp_path / "results/store")) == 3
    assert len(list((tmp_path / "results/checkpoints/digits").glob("*.safetensors"))) == 3


def test_a_damaged_shard_is_told_not_averaged(done: Path, tmp_path: Path, inside: Inside) -> None:
    shutil.copytree(done / "results", tmp_path / "results")
    shard = next((tmp_path / "results/store").rglob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    failed = inside(tmp_path, "run", *MATRIX, code=2)
    assert "is damaged" in last_line(failed) and shard.name in last_line(failed)
    shard.unlink()
    inside(tmp_path, "run", *MATRIX)
    assert store_content(tmp_path / "results/store") == store_content(done / "results/store")


def test_manifest_says_how_the_number_came_about(done: Path) -> None:
    import json

    folder = cell_folders(done / "results/store")[0]
    manifest, key = (json.loads((folder / name).read_text()) for name in ("manifest.json", "key.json"))
    assert manifest["examples"] == 359 and manifest["shards"] == 2
    assert manifest["budget"]["forwards"] > 359 and manifest["budget"]["seconds"] > 0
    assert manifest["request"]["arguments"][0] == "run"
    assert manifest["request"]["resolved"]["run"]["eps"] == ["2", "8"]
    assert manifest["environment"]["packages"]["torch"]
    assert key["model"]["options"]["tol"] == 1e-6 and key["model"]["mean"] == [0.3053]
    assert key["attack"]["options"]["steps"] in (2, 10) and key["dtype"] == "float32"


def test_outcomes_are_what_they_say(done: Path) -> None:
    for path in (done / "results/store").rglob("*.parquet"):
        columns = pq.read_table(path).to_pandas()
        eps = float(path.parent.name.split("@")[1].split("-")[0]) / 255
        assert (columns.linf <= eps + 1e-6).all()
        right = columns.clean == columns.label
        assert (columns.broken == (right & (columns.adversarial != columns.label))).all()
    assert columns.index.is_monotonic_increasing


def test_dry_run_computes_nothing(tmp_path: Path, inside: Inside) -> None:
    out = inside(tmp_path, "run", *MATRIX, "--dry-run").stdout
    assert "Nothing was computed" in out
    assert not list(tmp_path.rglob("*.parquet")) and not list(tmp_path.rglob("*.safetensors"))
    # I-FGSM and PGD at 2 and 8/255: 2 and 10 steps, and a clean and a final forward each
    assert f"{359 * 2 * (2 + 10 + 4):,}" in out and f"{359 * 2 * (2 + 10):,}" in out

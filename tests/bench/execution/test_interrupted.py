"""A cascade that is interrupted between its stages goes on from there, to the same bits."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from bench.attacks.autoattack import ATTACKS, COMPACT
from bench.attacks.core.cascade import CascadeState, bind
from bench.attacks.core.contract import ContractError
from bench.attacks.core.draws import Draws
from bench.evaluation.batch import Batch
from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import Outcomes
from bench.evaluation.reference_engine import NoCheckpoint, StageCheckpoint, evaluate
from bench.registry import attack
from bench.store.stage_checkpoints import StageCheckpoints
from tests.bench.helpers import Inside, command, environment, leftovers, store_content

N, BATCH = 40, 25

Run = Callable[..., tuple[Outcomes, Budget]]


class Loud(nn.Module):
    """Cross-entropy saturates behind it, so that stages after the first have something to find."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e3 * x


@pytest.fixture
def stage_checkpoints(tmp_path: Path) -> StageCheckpoints:
    return StageCheckpoints(tmp_path, 3)


@pytest.fixture
def run(stage_checkpoints: StageCheckpoints) -> Run:
    """AutoAttack on a shard of two batches, on a net on which every stage has something left to do."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 10), Loud()).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (N, 1, 6, 6), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        y = net(x / 255).argmax(1)
    entry = attack["autoattack"]
    search = bind(entry, entry.resolve({"iterations": 3, "targets": 1, "queries": 20}))

    def call(checkpoint: StageCheckpoint = stage_checkpoints) -> tuple[Outcomes, Budget]:
        batch = Batch(x, y, range(N), lambda rows: Draws(0, "x", rows))
        found = evaluate(net, search, batch, 0.1, classes=10, batch_size=BATCH, checkpoint=checkpoint)
        return found.outcomes, found.budget

    return call


def failing(message: str) -> Callable[..., Tensor]:
    def stage(*_: Any) -> Tensor:
        raise RuntimeError(message)

    return stage


def same(one: Outcomes, other: Outcomes) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_error_in_a_stage_costs_that_stage_alone(
    stage: int, run: Run, stage_checkpoints: StageCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, budget = run(NoCheckpoint())
    with monkeypatch.context() as patch:
        patch.setitem(COMPACT, ATTACKS[stage], failing("out of memory"))
        with pytest.raises(ContractError, match="the attack raised RuntimeError: out of memory"):
            run()
    kept = stage_checkpoints.load(0)
    assert kept is not None and kept[0].done == stage
    assert kept[1].forwards > 0
    done = list[int]()
    with monkeypatch.context() as patch:
        for name in ATTACKS[:stage]:
            patch.setitem(COMPACT, name, counted(COMPACT[name], done))
        found, spent = run()
    assert len(done) == stage, "only the second batch runs the stages that the first has behind it"
    assert same(found, expected) and (expected["broken_by"] > 0).any()
    assert budget.forwards < spent.forwards < 1.1 * budget.forwards, "what was spent before counts, too"
    assert spent.backwards == budget.backwards


def counted(original: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    def stage(*arguments: Any) -> Tensor:
        calls.append(1)
        return original(*arguments)

    return stage


def test_a_damaged_file_is_computed_again(run: Run, stage_checkpoints: StageCheckpoints) -> None:
    expected, _ = run()
    path = next(stage_checkpoints.folder.glob(".kept-00003-000.npz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert same(run()[0], expected)
    path.write_bytes(b"")
    assert stage_checkpoints.load(0) is None
    assert same(run()[0], expected)


def test_the_shelf_gives_back_what_it_was_given(stage_checkpoints: StageCheckpoints) -> None:
    reached_images, told = torch.rand(3, 1, 2, 2), torch.tensor([-1, 0, 1], dtype=torch.int8)
    reached = CascadeState(2, reached_images, told)
    stage_checkpoints.save(0, reached, Budget(1, 2, 3, 4, 5.5))
    StageCheckpoints(stage_checkpoints.folder, 4).save(0, reached, Budget())
    kept = stage_checkpoints.load(0)
    assert kept is not None and kept[1] == Budget(1, 2, 3, 4, 5.5) and kept[0].done == 2
    images, broken_by = kept[0].images, kept[0].broken_by
    assert images is not None and broken_by is not None
    assert torch.equal(images, reached_images) and torch.equal(broken_by, told)
    stage_checkpoints.clear()
    assert stage_checkpoints.load(0) is None and StageCheckpoints(stage_checkpoints.folder, 4).load(0) is not None


def test_killed_in_square_it_goes_on_there(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to the command-line process while Square runs, then the command again, without APGD at hand."""
    small = ("--models", "fc-linear", "--eps", "16", "--epochs", "3", "--examples", "1", "--workers", "1")
    attacks = ("--protocol", "standard", "--attacks", "autoattack[iterations=5,targets=2,queries=3000]")
    matrix = ("run", *small, *attacks)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    inside(calm, *matrix)
    shutil.copytree(calm / "results/checkpoints", rough / "results/checkpoints")
    store = rough / "results/store"
    process = subprocess.Popen(
        command(*matrix), cwd=rough, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and _stages_done(store) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _stages_done(store) == 3 and not list(store.rglob("*.parquet"))
    for name in ATTACKS[:3]:
        monkeypatch.setitem(COMPACT, name, failing("not again"))
    inside(rough, *matrix)
    assert store_content(store) == store_content(calm / "results/store")
    assert not leftovers(store)
    shards = [next((folder / "results/store").rglob("*.parquet")) for folder in (calm, rough)]
    spent = [json.loads(pq.read_schema(path).metadata[b"bench.budget"]) for path in shards]
    assert spent[1]["backwards"] == spent[0]["backwards"] > 0
    assert set(np.unique(pq.read_table(shards[0])["broken_by"])) >= {-1, 0}


def _stages_done(store: Path) -> int:
    for path in store.rglob(".kept-00000-000.npz"):
        with np.load(path) as kept:
            return int(kept["done"])
    return 0

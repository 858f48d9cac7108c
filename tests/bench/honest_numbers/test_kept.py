"""What gradients were like survives a kill between a cascade's stages, and older shards stay what they are."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from bench.attacks.core.cascade import Cascade, bind
from bench.attacks.core.draws import Draws
from bench.attacks.core.gradient_watch import NONE, NOT_FINITE
from bench.data.load import Dataset
from bench.evaluation.batch import Batch
from bench.evaluation.outcomes import Outcomes, same_outcomes
from bench.evaluation.reference_engine import evaluate
from bench.registry import attack
from bench.store.stage_checkpoints import StageCheckpoints
from tests.bench.helpers import Inside

N = 12


class Sharp(nn.Module):
    """A gradient that is NaN wherever a pixel is black."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return (x * x).sqrt().flatten(1) @ self.weight


def outcomes(digits: Dataset, search: Cascade, stage_checkpoints: StageCheckpoints) -> Outcomes:
    net, x = Sharp().eval(), digits.x_test[:N]
    with torch.no_grad():
        y = net(x.float() / 255).argmax(1)
    batch = Batch(x, y, range(N), lambda indices: Draws(0, "kept", indices))
    return evaluate(net, search, batch, 0.02, classes=10, batch_size=N, checkpoint=stage_checkpoints).outcomes


def test_a_resumed_cascade_knows_of_the_stages_before(digits: Dataset, tmp_path: Path) -> None:
    options = {"attacks": "apgd-ce+square", "iterations": 2, "targets": 1, "queries": 3}
    search = bind(attack["autoattack"], options)
    assert isinstance(search, Cascade)
    whole = outcomes(digits, search, StageCheckpoints(tmp_path / "whole", 0))
    assert (whole["gradient"] == NOT_FINITE).sum() >= N - 2

    def killed(*arguments: object, **named: object) -> Tensor:
        raise KeyboardInterrupt

    stage_checkpoints = StageCheckpoints(tmp_path / "part", 0)
    (tmp_path / "part").mkdir()
    with pytest.raises(KeyboardInterrupt):
        outcomes(digits, Cascade({**search.stages, "square": killed}, folded=True), stage_checkpoints)
    resumed = outcomes(digits, search, stage_checkpoints)
    assert np.array_equal(resumed["gradient"], whole["gradient"])


def test_shards_without_the_column_are_read_and_are_the_same(tmp_path: Path, inside: Inside) -> None:
    quick = ("run", "--models", "fc-linear", "--epochs", "2", "--eps", "8", "--attacks", "ifgsm", "--examples", "250")
    before = inside(tmp_path, *quick, "--format", "json").stdout
    shards = sorted(tmp_path.rglob("shard-*.parquet"))
    assert shards
    for path in shards:
        table = pq.read_table(path)
        assert set(table["gradient"].to_pylist()) <= {NONE, 1}
        pq.write_table(table.drop_columns(["gradient"]), path)
    # Computed again for the images, they hold the same outcomes; and old and new ones go into one file.
    kept = inside(tmp_path, *quick, "--format", "json", "--keep-adversarial").stdout
    assert kept == before
    inside(tmp_path, *quick[:-1], "0", "--format", "json")
    inside(tmp_path, "compact")
    assert inside(tmp_path, *quick, "--format", "json").stdout == before


def test_verdicts_make_shards_the_same_not_gradients() -> None:
    columns = {"broken": np.array([True]), "linf": np.array([0.1]), "gradient": np.array([1], np.int8)}
    other = columns | {"gradient": np.array([0], np.int8)}
    assert same_outcomes(columns, other)
    assert same_outcomes(columns, {name: columns[name] for name in ("broken", "linf")})
    assert not same_outcomes(columns, other | {"broken": np.array([False])})

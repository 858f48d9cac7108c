"""What a shard's file is called inside: names that stores on users' disks hold, whatever the code is called."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import same_outcomes
from bench.store.parquet import count_together, read_shard, read_together, write_shard, write_together

SPENT = Budget(forwards=12, backwards=8, f_evaluations=90, vjps=70, seconds=0.5)
OUTCOMES = {
    "index": np.arange(3, dtype=np.int32),
    "broken": np.array([True, False, True]),
    "linf": np.array([0.03, 0.0, 0.03], np.float32),
    "residual": np.array([1e-7, np.nan, 2e-7], np.float32),
}


def test_a_shard_holds_its_budget_under_a_name_that_stays(tmp_path: Path) -> None:
    table = pa.table(OUTCOMES).replace_schema_metadata({"bench.budget": json.dumps(SPENT.as_dict())})
    pq.write_table(table, tmp_path / "older.parquet")
    outcomes, budget = read_shard(tmp_path / "older.parquet")
    assert budget == SPENT and same_outcomes(outcomes, OUTCOMES)

    write_shard(tmp_path / "shard.parquet", OUTCOMES, SPENT)
    assert pq.read_schema(tmp_path / "shard.parquet").metadata.keys() == {b"bench.budget"}


def test_so_does_the_file_for_all_shards(tmp_path: Path) -> None:
    path = tmp_path / "shards.parquet"
    write_together(path, [(OUTCOMES, SPENT), (OUTCOMES, Budget())])
    assert b"bench.budgets" in pq.read_schema(path).metadata
    assert count_together(path) == 2
    assert read_together(path, 0)[1] == SPENT and same_outcomes(read_together(path, 1)[0], OUTCOMES)

"""Outcomes of shards as Parquet: a file each while they are computed, one file for all of a cell that is to be kept.

Thousands of files of a few kilobytes weigh several times what they hold. In the file for all, a shard is a row group.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import BenchError, first_line
from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import Outcomes
from bench.system.files import write_atomically

_BUDGET, _BUDGETS = b"bench.budget", b"bench.budgets"  # in files that users have
_FORM: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write_shard(path: Path, outcomes: Outcomes, budget: Budget) -> None:
    """One shard, wholly or not at all."""
    table = _table(outcomes).replace_schema_metadata({_BUDGET: json.dumps(budget.as_dict()).encode()})
    write_atomically(path, lambda part: pq.write_table(table, part, **_FORM))


def read_shard(path: Path) -> tuple[Outcomes, Budget]:
    """Raises BenchError for a damaged file."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        return _columns(table), Budget(**json.loads((table.schema.metadata or {})[_BUDGET]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise BenchError(f"shard {path} is damaged ({first_line(error)}); delete it and run again.") from error


def write_together(path: Path, shards: Sequence[tuple[Outcomes, Budget]]) -> None:
    """All shards of a cell, in order, wholly or not at all."""
    budgets = json.dumps([budget.as_dict() for _, budget in shards]).encode()
    tables = [_table(outcomes) for outcomes, _ in shards]
    schema = tables[0].schema.with_metadata({_BUDGETS: budgets})
    # Columns may come in another order, where a shard is older than one of them (`Store.read`).
    tables = [table.select(schema.names).cast(schema) for table in tables]

    # Of 40 row groups statistics and plain encodings would be a third of the file.
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    form = {
        **_FORM,
        "write_statistics": False,
        "use_dictionary": [name for name in schema.names if name not in (*floats, "index")],
        "column_encoding": {"index": "DELTA_BINARY_PACKED", **dict.fromkeys(floats, "BYTE_STREAM_SPLIT")},
    }

    def write(part: Path) -> None:
        with pq.ParquetWriter(part, schema, **form) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))

    write_atomically(path, write)


def count_together(path: Path) -> int:
    """How many shards a file for all holds; 0 where there is none. Raises BenchError for a damaged one."""
    try:
        state = path.stat()
    except OSError:
        return 0
    return len(_budgets(path, state.st_mtime_ns, state.st_size))


def read_together(path: Path, shard: int) -> tuple[Outcomes, Budget]:
    """One shard of a file for all. Raises BenchError for a damaged one."""
    state = path.stat()
    budget = _budgets(path, state.st_mtime_ns, state.st_size)[shard]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return _columns(file.read_row_group(shard)), budget
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _damaged(path, error) from error


@lru_cache(maxsize=4096)
def _budgets(path: Path, changed: int, size: int) -> list[Budget]:
    """Per shard; looked up once for every state of a file, since whether a shard is there is asked often."""
    try:
        with pq.ParquetFile(path) as file:
            budgets = [Budget(**one) for one in json.loads((file.schema_arrow.metadata or {})[_BUDGETS])]
            if len(budgets) != file.num_row_groups:
                raise ValueError(f"{file.num_row_groups} shards, {len(budgets)} budgets")
            return budgets
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BenchError:
    return BenchError(f"shards {path} are damaged ({first_line(error)}); delete the file and run again.")


def _table(outcomes: Outcomes) -> pa.Table:
    return pa.table({name: pa.array(column) for name, column in outcomes.items()})


def _columns(table: pa.Table) -> Outcomes:
    return {name: table[name].to_numpy() for name in table.column_names}

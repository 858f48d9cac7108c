"""The paper's tables with our numbers beside them: one frame, a row per printed number."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pandas as pd

from bench.data.declared import load_datasets
from bench.data.load import Dataset
from bench.errors import BenchError
from bench.execution.matrix_rows import FailedRow, Matrix, PlannedRow, Row
from bench.execution.plan import plan_attacks
from bench.paper.load import ATTACKS, Printed, printed_cells
from bench.registry import protocol
from bench.settings.config import Config
from bench.settings.radii import show_eps
from bench.settings.specs import parse_model, unique
from bench.statistics import Share
from bench.store.cells import Cell
from bench.store.store import Store
from bench.tables.table_lines import clean_share, robust_share
from bench.training.checkpoint_choice import cards, longest_trained, trained, training_note
from bench.training.job_identity import check_groups, make_job

CLEAN = ""  # the attack of a printed accuracy without attack


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables, planned.

    Attributes:
        printed: its cells, those that were asked for.
        matrix: a row for each of its models on each data set, in the paper's order.
        notes: per (data set, model of ours) how it was trained; "" where there is no checkpoint.
    """

    number: int
    printed: list[Printed]
    matrix: Matrix
    notes: dict[tuple[str, str], str]

    def row(self, cell: Printed) -> Row:
        """The row of the matrix behind a printed cell."""
        names = list(self.notes)
        return self.matrix.rows[names.index((cell.dataset, cell.model))]


def plan_paper_table(
    number: int,
    config: Config,
    epochs: int | None,
    datasets: Collection[str] = (),
    models: Collection[str] = (),
    fetch: bool = False,
) -> PaperTable:
    """The rows of a table of the paper, each with the checkpoint that was trained longest.

    Args:
        number: 1, 2 or 3.
        epochs: as every recipe shall have them; None: whatever the checkpoints have.
        datasets, models: only these, by our names; empty: all of the table.
        fetch: load data sets without any checkpoint too, which may download them.

    Raises:
        BenchError: nothing is left of the table, or the protocol has not its attacks.
    """
    check_groups(config)
    wanted = [c for c in printed_cells(number) if (not datasets or c.dataset in datasets)]
    printed = [c for c in wanted if not models or c.model in models]
    if not printed:
        raise BenchError(_nothing_left(number))
    eps = list(dict.fromkeys(c.eps for c in printed if c.attack))
    if not set(ATTACKS.values()) <= set(protocol[config.run.protocol].target(eps[0])):
        raise BenchError(f"--protocol: the paper's tables need {' and '.join(ATTACKS)}, as `paper` runs them.")
    attacks = plan_attacks(config.run.protocol, [], eps)
    data: dict[str, Dataset] = {}
    rows: list[Row] = []
    notes: dict[tuple[str, str], str] = {}
    for name, model in dict.fromkeys((c.dataset, c.model) for c in printed):
        notes[name, model] = ""
        if not fetch and not cards(config.paths.checkpoints, name):
            rows.append(FailedRow(model, name, ""))
            continue
        try:
            if name not in data:
                alone = config.run.model_copy(update={"datasets": [name]})
                data |= load_datasets(config.model_copy(update={"run": alone}))
            asked = make_job(parse_model(model), data[name], config, config.run.train_seed, epochs)
        except BenchError as error:
            rows.append(FailedRow(model, name, str(error)))
            continue
        job = asked if epochs is not None else longest_trained(asked, config.paths.checkpoints)
        rows.append(PlannedRow(job.label, name, job))
        if trained(job, config.paths.checkpoints):
            notes[name, model] = training_note(asked, job)
    return PaperTable(number, printed, Matrix(data, tuple(rows), tuple(attacks), tuple(eps)), notes)


def paper_frame(table: PaperTable, store: Store, examples: int) -> pd.DataFrame:
    """A row per printed number: the paper's, ours, the difference in points, the interval, n, how it was trained.

    Args:
        examples: the first n test images; 0: as many as the store holds of each cell.

    Returns:
        Columns table, dataset, row, attack, eps, paper, model, training, accuracy, low, high, n, hits, difference,
        paper_in_interval, key; those from `accuracy` on are missing where the store has no such number.
    """
    records = []
    for cell in table.printed:
        row = table.row(cell)
        record: dict[str, Any] = {
            "table": table.number,
            "dataset": cell.dataset,
            "row": cell.row,
            "attack": cell.attack,
            "eps": show_eps(cell.eps),
            "paper": cell.value,
            "model": row.label,
            "training": ", ".join(filter(None, [table.notes[cell.dataset, cell.model], row.note])),
        }
        found = _ours(cell, row, store, examples)
        if found is not None:
            share, key = found
            low, high = share.interval
            record |= {"accuracy": share.percent, "low": low, "high": high, "n": share.n, "hits": share.hits}
            record |= {"difference": share.percent - cell.value, "paper_in_interval": low <= cell.value <= high}
            record["key"] = key
        records.append(record)
    frame = pd.DataFrame(records, columns=[*COLUMNS])
    return frame.astype({"n": "Int64", "hits": "Int64", "paper_in_interval": "boolean"})


COLUMNS = (
    *("table", "dataset", "row", "attack", "eps", "paper", "model", "training"),
    *("accuracy", "low", "high", "n", "hits", "difference", "paper_in_interval", "key"),
)


def _ours(printed: Printed, row: Row, store: Store, examples: int) -> tuple[Share, str] | None:
    """Our number for a printed one, and the key of the cell it comes from."""
    stored = [(store.available(cell), cell) for cell in row.cells if _answers(printed, cell)]
    # Any attack tells accuracy without attack; the one with most images tells it best.
    n, best = max(stored, key=lambda pair: pair[0], default=(0, None))
    if best is None or not n or n < min(examples, best.examples):
        return None
    outcomes = store.outcomes(best, examples or n)
    if outcomes is None:
        return None
    return (robust_share if printed.attack else clean_share)(outcomes), best.key()


def _answers(printed: Printed, cell: Cell) -> bool:
    return printed.attack == CLEAN or (ATTACKS[printed.attack], printed.eps) == (cell.attack, cell.eps)


def _nothing_left(number: int) -> str:
    cells = printed_cells(number)
    return (
        f"Table {number} has the data sets {', '.join(unique(c.dataset for c in cells))} and the models "
        f"{', '.join(unique(c.model for c in cells))}: nothing is left of it with this --dataset and --models."
    )


@dataclass
class Gap:
    """What one data set lacks of a table."""

    models: list[str]
    attacks: list[str]
    eps: list[Fraction]


def gaps(table: PaperTable, frame: pd.DataFrame) -> dict[str, Gap]:
    """Per data set the models (as `bench run` takes them), attacks and radii without a number."""
    lacking = [
        (cell, table.row(cell).label)
        for cell, there in zip(table.printed, frame["accuracy"].notna(), strict=True)
        if cell.attack and not there
    ]
    return {
        name: Gap(
            unique(label for cell, label in lacking if cell.dataset == name),
            unique(ATTACKS[cell.attack] for cell, _ in lacking if cell.dataset == name),
            list(dict.fromkeys(cell.eps for cell, _ in lacking if cell.dataset == name)),
        )
        for name in unique(cell.dataset for cell, _ in lacking)
    }

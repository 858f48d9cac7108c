"""The column of a table that says what its numbers are worth."""

from collections.abc import Sequence

from bench.diagnostics.findings import NOT_DIAGNOSED, stored_verdict
from bench.execution.matrix_rows import Matrix
from bench.settings.config import Config
from bench.tables.table_lines import Line


def add_verdicts(lines: Sequence[Line], matrix: Matrix, config: Config) -> list[str]:
    """Give every line with numbers its verdict from the store. Returns the readings, a sentence a model."""
    sentences, undiagnosed = [], []
    several = len(config.run.train_seeds) > 1
    for row in matrix.rows:
        here = (row.dataset, row.label, row.train_seed)
        own = [line for line in lines if (line.dataset, line.model, line.train_seed) == here and line.clean]
        if not own:
            continue
        named = f"{row.label} (seed {here[2]})" if several and here[2] is not None else row.label
        reading = stored_verdict(row, matrix, config)
        for line in own:
            line.verdict = reading.name if reading else NOT_DIAGNOSED
        if reading:
            sentences.append(f"Verdict on {named} on {row.dataset}, from {reading.n} images: {reading.sentence}")
        else:
            undiagnosed.append(named)
    if undiagnosed:
        sentences.append(
            f"Not diagnosed: {', '.join(dict.fromkeys(undiagnosed))}. `python -m bench diagnose MODEL` with the same "
            "--dataset, --protocol, --attacks and --eps tells whether the evaluation is broken."
        )
    return sentences

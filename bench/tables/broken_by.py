"""Which stage of a cascade broke how many examples first."""

from collections.abc import Sequence

from tabulate import tabulate

from bench.settings.radii import show_eps
from bench.tables.table_lines import Line


def broken_by_lines(lines: Sequence[Line]) -> str:
    """A table of them for every line and radius, a column per stage; empty where nothing has stages.

    In a chain of radii a stage is credited at every radius from the one at which it broke the example.
    """
    texts = []
    for attack_label in dict.fromkeys(line.attack for line in lines if line.broken_by_stage):
        chosen = [line for line in lines if line.attack == attack_label]
        stages = list(
            dict.fromkeys(stage for line in chosen for counts in line.broken_by_stage.values() for stage in counts)
        )
        body = [
            [line.dataset, line.model, line.train_seed, show_eps(eps), *(counts.get(stage, 0) for stage in stages)]
            for line in chosen
            for eps, counts in sorted(line.broken_by_stage.items())
        ]
        header = [f"Broken first by ({attack_label})", "model", "seed", "ε", *stages]
        texts.append(tabulate(body, header, tablefmt="plain"))
    return "\n".join(texts) + "\n" if texts else ""

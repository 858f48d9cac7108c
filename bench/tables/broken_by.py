"""Which stage of a cascade broke how many examples first; and what kept an attack from a model's worst case."""

from collections.abc import Sequence

from tabulate import tabulate

from bench.settings.radii import show_eps
from bench.tables.table_lines import Line


def broken_by_lines(lines: Sequence[Line]) -> str:
    """A table of them for every line and radius, a column per stage; empty where nothing has stages.

    In a chain of radii a stage is credited at every radius from the one at which it broke the example. One that was
    not run, because nothing stood before it or the model lacks the view it follows, has a dash.
    """
    texts = []
    for attack_label in dict.fromkeys(line.attack for line in lines if line.broken_by_stage):
        chosen = [line for line in lines if line.attack == attack_label]
        stages = list(
            dict.fromkeys(stage for line in chosen for counts in line.broken_by_stage.values() for stage in counts)
        )
        body = [
            [line.dataset, line.model, line.train_seed, show_eps(eps), *(_count(counts.get(stage)) for stage in stages)]
            for line in chosen
            for eps, counts in sorted(line.broken_by_stage.items())
        ]
        header = [f"Broken first by ({attack_label})", "model", "seed", "ε", *stages]
        texts.append(tabulate(body, header, tablefmt="plain"))
    return "\n".join(texts) + "\n" if texts else ""


def worst_case_notes(lines: Sequence[Line]) -> list[str]:
    """A sentence for every implicit model whose states an adaptive attack could not follow."""
    found = [
        f"NOTE: {line.model} on {line.dataset} solves for an equilibrium and offers no view of its states "
        f"(`views()`: {', '.join(line.unseen)}; see models/equilibrium/surrogate_gradients.py). "
        f"{line.attack} followed its own gradient alone: "
        "this is not the worst case known for implicit models."
        for line in lines
        if line.unseen
    ]
    return list(dict.fromkeys(found))


def _count(count: int | None) -> int | str:
    return "—" if count is None else count

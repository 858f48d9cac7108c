"""A row of the store as RobustBench writes its entries: one `model_info` JSON per model, data set and radius.

Fields of theirs that we do not know are null; what we measured stands under `bench`. `autoattack_acc` is filled from
AutoAttack as RobustBench runs it, on the whole test set, and from nothing else.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

from bench import __version__
from bench.execution.matrix_rows import Row
from bench.registry import attack
from bench.settings.radii import show_eps
from bench.statistics import Share
from bench.store.cells import Cell
from bench.store.store import Store
from bench.system.canonical import slug
from bench.system.files import safe_name
from bench.tables.table_lines import clean_share, robust_share


def model_infos(row: Row, store: Store, examples: int) -> dict[Path, dict[str, Any]]:
    """Paths in RobustBench's layout, `<data set>/Linf/<model>[-seed<n>]@<ε>.json`, and what goes there.

    Args:
        examples: the first n test images, 0: all. A radius of which the store lacks every attack is left out.
    """
    by_eps: dict[Fraction, list[Cell]] = {}
    for cell in row.cells:
        if not store.missing(cell, examples):
            by_eps.setdefault(cell.eps, []).append(cell)
    # Of other training seeds than 0 the name says which.
    seed = f"-seed{row.job.seed}" if row.job and not row.job.pretrained and row.job.seed else ""
    infos = {}
    for eps, cells in by_eps.items():
        name = f"{slug(row.label)}{seed}@{show_eps(eps).replace('/', '-')}.json"
        infos[Path(safe_name(row.dataset)) / "Linf" / name] = _info(row, cells, store, examples)
    return infos


def _info(row: Row, cells: list[Cell], store: Store, examples: int) -> dict[str, Any]:
    assert row.job is not None
    first = cells[0]
    outcomes = [store.outcomes(cell, examples) for cell in cells]
    found = [o for o in outcomes if o is not None]
    clean, shares = clean_share(found[0]), [robust_share(o) for o in found]
    official = [s for c, s in zip(cells, shares, strict=True) if _is_autoattack(c) and s.n == c.examples]
    architecture = row.job.architecture.name
    return {
        "link": None,
        "name": None,
        "authors": None,
        # Our recipes train on the data set alone; what weights from elsewhere have seen, we do not know.
        "additional_data": None if row.job.pretrained else False,
        "number_forward_passes": None,
        "dataset": row.dataset,
        "venue": None,
        "architecture": None if ":" in architecture else architecture,
        "eps": show_eps(first.eps),
        "clean_acc": f"{clean.percent:.2f}",
        "reported": None,
        "autoattack_acc": f"{official[0].percent:.2f}" if official else None,
        "unreliable": None,
        "footnote": f"Protocol '{first.protocol}' on the first {clean.n} of {first.examples} test images; see 'bench'."
        + ("" if official else " No AutoAttack number."),
        "bench": {
            "version": __version__,
            "model": row.label,
            "protocol": first.protocol,
            "input_space": "pixels in [0, 1]",
            "train_seed": row.train_seed,
            "attack_seed": first.seed,
            "weights": first.identity.model.weights,
            "clean": _share(clean),
            "robust": [
                {"attack": c.attack, "options": c.attack_options, "key": c.key(), **_share(s)}
                for c, s in zip(cells, shares, strict=True)
            ],
        },
    }


def _is_autoattack(cell: Cell) -> bool:
    """Whether a cell is AutoAttack, by either engine, with the options that RobustBench runs it with: its defaults."""
    if (cell.protocol, cell.attack) != ("standard", "autoattack"):
        return False
    entry = attack[cell.attack]
    return entry.traits.strength(cell.attack_options) == entry.traits.strength(entry.defaults())


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {"accuracy": round(share.percent, 2), "n": share.n, "interval_95": [round(low, 2), round(high, 2)]}

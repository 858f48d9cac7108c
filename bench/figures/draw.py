"""Which models and cells a figure is made of, and under which name it is saved."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from bench.execution.matrix_rows import Matrix, PlannedRow, Row
from bench.execution.plan import plan_matrix
from bench.execution.plan_cells import with_stored_cells
from bench.figures.curves import Points, curve_caption, figure_4, security_curves
from bench.figures.recompute import attack_first
from bench.figures.series import Series, make_series
from bench.figures.style import save, styled
from bench.registry import attack
from bench.settings.config import Config
from bench.settings.radii import show_eps
from bench.store.cells import engine_for
from bench.store.store import Store
from bench.store.stored_cells import StoredCell, inventory
from bench.system.environment import pick_device
from bench.tables.worst_case import worst_cases
from bench.training.checkpoint_choice import longest_trained


def draw(kind: str, config: Config, epochs: int | None, failures: list[str], out: Path) -> tuple[list[Path], list[str]]:
    """Draw one figure for each data set.

    Args:
        kind: 3, 4, curve, solver or images.
        epochs: of the checkpoints; None: of each model the one that was trained longest.
        failures: of plugins.
        out: folder of the files.

    Returns:
        The files written, and a line for every model that a figure could not show.
    """
    matrix = plan_matrix(config, epochs, failures)
    if epochs is None:
        matrix = matrix.with_rows([_longest(row, config) for row in matrix.rows])
    matrix = with_stored_cells(matrix, config, pick_device(config.run.device).type)
    paths, problems = [], []
    for dataset in matrix.data:
        rows = [row for row in matrix.rows if row.dataset == dataset]
        make = _from_store if kind in ("4", "curve") else _recomputed
        with styled():
            drawn, left_out = make(kind, dataset, rows, matrix, config, out)
        paths += drawn
        problems += left_out
    return paths, problems


def _longest(row: Row, config: Config) -> Row:
    if not isinstance(row, PlannedRow):
        return row
    return replace(row, job=longest_trained(row.job, config.paths.checkpoints))


def _recomputed(
    kind: str, dataset: str, rows: list[Row], matrix: Matrix, config: Config, out: Path
) -> tuple[list[Path], list[str]]:
    plan = next((p for p in matrix.attacks if not config.run.attacks and p.entry.name == "pgd"), matrix.attacks[0])
    there = [row for row in rows if row.cells]
    problems = [_untrained(row) for row in rows if not row.cells]
    if not there:
        return [], problems
    data = matrix.data[dataset]
    attacked = [attack_first(row, plan, data, config, config.run.examples) for row in there]
    if kind == "3":
        from bench.figures.features import figure_3

        figure, caption = figure_3(attacked, config.run.seed)
    elif kind == "solver":
        from bench.figures.solver import solver_figure

        figure, caption = solver_figure(attacked)
    else:
        from bench.figures.images import image_grid

        figure, caption = image_grid(attacked)
    name = {"3": "figure-3", "solver": "solver", "images": "images"}[kind]
    return save(figure, caption, out, f"{name}-{dataset}-{_radius(plan.eps)}"), problems


def _from_store(
    kind: str, dataset: str, rows: list[Row], matrix: Matrix, config: Config, out: Path
) -> tuple[list[Path], list[str]]:
    found, problems = inventory(Store(config.paths.store))
    by_model: dict[str, list[Series]] = {}
    worst: dict[str, Points] = {}
    protocols = [config.run.protocol] if kind == "4" else None
    for row in rows:
        if not row.cells:
            problems.append(_untrained(row))
            continue
        stored = [one for one in found if _same_model(one, row, config.run.engine)]
        shown = _chosen(stored, matrix, config, protocols)
        series = make_series(shown, config.run.examples)
        if not any(len(one.points) > 1 for one in series):
            problems.append(f"{row.label} on {dataset}: not in the store; {_fill(row, matrix, config)}")
            continue
        name = _name(row, rows)
        for one in series:
            one.model = name
        by_model[name] = series
        points = worst_cases(row.cells[0], found, config.run.examples)
        if shares := {eps: one.share for eps, one in points.items() if kind != "4" or eps in matrix.eps}:
            worst[name] = shares
    if not by_model:
        return [], problems
    if kind == "4":
        figure, caption = figure_4(dataset, [one for group in by_model.values() for one in group], worst)
        return save(figure, caption, out, f"figure-4-{dataset}"), problems
    figure = security_curves(dataset, by_model, worst)
    return save(figure, curve_caption(dataset, by_model, worst), out, f"curve-{dataset}"), problems


def _name(row: Row, rows: list[Row]) -> str:
    """Its label, and its training seed where several rows have that label."""
    alike = [other for other in rows if other.label == row.label]
    return f"{row.label}, seed {row.job.seed}" if row.job and len(alike) > 1 else row.label


def _same_model(one: StoredCell, row: Row, engine: str) -> bool:
    """Same weights and options, data, attack seed, device class and batches, under whatever name; and of two engines
    the one that is asked for."""
    wanted, identity = row.cells[0].identity, one.cell.identity
    same = (identity.place(), identity.seed) == (wanted.place(), wanted.seed)
    known = one.cell.attack in attack
    asked = (engine_for(attack[one.cell.attack] if known else None, engine), wanted.batch)
    return same and not one.certificate and (identity.engine, identity.batch) == asked


def _chosen(stored: list[StoredCell], matrix: Matrix, config: Config, protocols: list[str] | None) -> list[StoredCell]:
    """Of these protocols and, for Fig. 4, of its radii and attacks, with the row's own label."""
    labels = {plan.label for plan in matrix.attacks}
    return [
        one
        for one in stored
        if protocols is None
        or (one.cell.protocol in protocols and one.cell.eps in matrix.eps and one.cell.attack_label in labels)
    ]


def _untrained(row: Row) -> str:
    return f"{row.label} on {row.dataset} is left out: {row.failure or 'it has no checkpoint'}."


def _fill(row: Row, matrix: Matrix, config: Config) -> str:
    label = row.job.label if row.job else row.label
    radii = ",".join(show_eps(eps).removesuffix("/255") for eps in matrix.eps)
    run = (
        f"python -m bench run --models '{label}' --dataset {row.dataset} --protocol {config.run.protocol} --eps {radii}"
    )
    if config.run.engine != "packed":
        run += f" --engine {config.run.engine}"
    return f"`{run}` fills it."


def _radius(eps: Fraction) -> str:
    return show_eps(eps).replace("/", "-")

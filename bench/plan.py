"""From a request (configuration and command line) to rows of cells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.cells import Cell, Source, cell_identity
from bench.config import Config
from bench.data.load import Dataset, load
from bench.epsilon import parse_eps
from bench.errors import BenchError
from bench.files import read_json
from bench.names import parse_model, parse_spec, unique
from bench.registry import Entry, attack, protocol
from bench.spaces import space_of
from bench.training.checkpoint import card_path, weights_hash
from bench.training.job import Job, check_groups, make_job
from bench.training.loop import build_model
from bench.twins import twin_job


@dataclass(frozen=True)
class AttackPlan:
    """One attack of the protocol at one radius, options resolved."""

    entry: Entry
    label: str
    options: dict[str, Any]
    eps: Fraction


@dataclass
class Row:
    """One model on one data set: how to train it, and its cells once its weights are there.

    `failure` says, in one line, why the row has no (or not all) numbers.
    `twins` are the undefended twins that attacks start from, by how the attack's option names them.
    """

    label: str
    dataset: str
    job: Job | None = None
    twins: dict[str, Job] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class Matrix:
    """Everything a run needs: the data, the rows, the attacks, the radii."""

    data: dict[str, Dataset]
    rows: list[Row]
    attacks: list[AttackPlan]
    eps: list[Fraction]


def plan_matrix(config: Config, epochs: int | None, plugin_failures: list[str]) -> Matrix:
    """Check and resolve every name before anything is computed.

    Args:
        epochs: from the command line, for every recipe.
        plugin_failures: where a plugin failed to import, a model that is missing for it becomes a
            row that says so, and the others run.

    Raises:
        BenchError: unknown names, bad radii, missing data.
    """
    run = config.run
    check_groups(config)
    eps = unique_eps(run.eps)
    attacks = plan_attacks(run.protocol, run.attacks, eps)
    data = load_datasets(config)
    rows = []
    for name in data:
        for text in unique(run.models):
            row = Row(text, name)
            spec = parse_model(text)
            try:
                row.job = make_job(spec, data[name], config, run.train_seed, epochs)
                row.label = str(spec)
                row.twins = _twins(row.job, attacks, data[name], config)
            except BenchError as error:
                if not plugin_failures or "unknown model" not in str(error):
                    raise
                row.failure = f"{error} ({plugin_failures[0]})"
            rows.append(row)
    return Matrix(data, rows, attacks, eps)


def _twins(job: Job, attacks: list[AttackPlan], data: Dataset, config: Config) -> dict[str, Job]:
    options = [plan.entry.traits.get("twin") for plan in attacks]
    named = {str(plan.options[option]) for plan, option in zip(attacks, options, strict=True) if option}
    found = {name: twin_job(job, data, config, name) for name in sorted(named)}
    return {name: twin for name, twin in found.items() if twin is not None}


def load_datasets(config: Config) -> dict[str, Dataset]:
    """The data sets of [run], loaded."""
    declared = {name: entry.model_dump() for name, entry in config.datasets.items()}
    return {name: load(name, config.paths.data, declared.get(name)) for name in unique(config.run.datasets)}


def unique_eps(texts: list[str]) -> list[Fraction]:
    """The radii in the order given, without repetitions. Raises BenchError for a bad one or none."""
    if not texts:
        raise BenchError("--eps: give at least one radius, e.g. --eps 2,4,6,8.")
    return list(dict.fromkeys(parse_eps(text) for text in texts))


def plan_attacks(protocol_name: str, chosen: list[str], eps: list[Fraction]) -> list[AttackPlan]:
    """Every attack at every radius. Named attacks take the protocol's options, then those in their brackets."""
    plans = []
    how = protocol[protocol_name]
    # On the label, a control says so in every format of the table.
    control = "" if space_of(how) == "pixel" else " (control)"
    for radius in eps:
        of_protocol: Mapping[str, dict[str, Any]] = how.target(radius)
        for text in unique(chosen) or list(of_protocol):
            spec = parse_spec(text)
            entry = attack[spec.name]
            options = entry.resolve({**of_protocol.get(spec.name, {}), **spec.options})
            label = entry.traits.get("label", spec.name)
            given = ",".join(f"{k}={v}" for k, v in sorted(spec.options.items()))
            label = (f"{label}[{given}]" if given else label) + control
            plans.append(AttackPlan(entry, label, options, radius))
    return plans


def trained(job: Job, checkpoints: Path) -> bool:
    """Whether nothing has to be trained for this job."""
    if job.pretrained:
        return True
    path = job.checkpoint(checkpoints)
    return path.exists() and card_path(path).exists()


def add_stored_cells(matrix: Matrix, config: Config, device: str) -> None:
    """Fill in the cells of every row whose weights are there; what keeps a row from it becomes its failure."""
    for row in matrix.rows:
        jobs = [] if row.job is None else [row.job, *row.twins.values()]
        if jobs and not row.failure and all(trained(job, config.paths.checkpoints) for job in jobs):
            try:
                add_cells(row, matrix, config, device)
            except BenchError as error:
                row.failure = str(error)


def add_cells(row: Row, matrix: Matrix, config: Config, device: str) -> None:
    """Fill in the cells of a row whose weights, and whose twins', are there.

    A nested attack's cells form a chain of ascending radii.
    """
    assert row.job is not None
    job, data = row.job, matrix.data[row.dataset]
    source, facts = _model(row.label, job, data, config.paths.checkpoints)
    twins = {name: _model(twin.label, twin, data, config.paths.checkpoints) for name, twin in row.twins.items()}
    how = protocol[config.run.protocol]
    placed: dict[int, Cell] = {}
    for position, plan in sorted(enumerate(matrix.attacks), key=lambda item: item[1].eps):
        twin = twins.get(str(plan.options.get(plan.entry.traits.get("twin", ""))))
        smaller = _next_smaller(plan, placed.values()) if plan.entry.traits.get("nested") else None
        chain = [] if smaller is None else [*smaller.identity["chain"], str(smaller.eps)]
        identity = cell_identity(
            model=facts,
            dataset=data.name,
            test_hash=data.test_hash,
            protocol=how.name,
            protocol_implementation=how.implementation(),
            attack=plan.entry.name,
            attack_implementation=plan.entry.implementation(),
            attack_options=plan.options,
            eps=plan.eps,
            seed=config.run.seed,
            device=device,
            batch=config.run.batch_size,
            twin=twin[1] if twin else None,
            chain=chain if plan.entry.traits.get("nested") else None,
        )
        placed[position] = Cell(
            source=source,
            dataset=data.name,
            examples=len(data.x_test),
            protocol=how.name,
            attack=plan.entry.name,
            attack_label=plan.label,
            attack_options=plan.options,
            eps=plan.eps,
            seed=config.run.seed,
            batch=config.run.batch_size,
            identity=identity,
            twin=twin[0] if twin else None,
            smaller=smaller,
        )
    row.cells += [cell for _, cell in sorted(placed.items())]


def _next_smaller(plan: AttackPlan, cells: Iterable[Cell]) -> Cell | None:
    """The cell of the same attack at the largest radius below the plan's."""
    below = [c for c in cells if (c.attack, c.attack_label) == (plan.entry.name, plan.label) and c.eps < plan.eps]
    return max(below, key=lambda cell: cell.eps, default=None)


def _model(label: str, job: Job, data: Dataset, checkpoints: Path) -> tuple[Source, dict[str, Any]]:
    """Where a worker finds a model, and what of it keys a cell."""
    source, weights = _source(label, job, data, checkpoints)
    images = job.foreign.images(data.images) if job.foreign else data.images
    return source, {
        "architecture": job.architecture.name,
        "implementation": job.architecture.implementation(),
        "options": job.architecture.keyed(job.options),
        "weights": weights,
        "mean": images.mean,
        "std": images.std,
    }


def _source(label: str, job: Job, data: Dataset, checkpoints: Path) -> tuple[Source, str]:
    source = Source(label, job.architecture.name, dict(job.options), "", job.seed)
    if job.pretrained:
        weights = weights_hash(build_model(job, data).state_dict())
        return replace(source, foreign=replace(job.foreign, weights=weights) if job.foreign else None), weights
    path = job.checkpoint(checkpoints)
    named = read_json(card_path(path)).get("weights")
    if not isinstance(named, str):
        raise BenchError(f"card {card_path(path)} names no weights; delete it and its checkpoint and train again.")
    return replace(source, checkpoint=str(path)), named

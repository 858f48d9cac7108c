"""From a request (configuration and command line) to rows of cells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.data.load import Dataset, load
from bench.errors import BenchError
from bench.evaluation.certificates import CERTIFICATE, IMPLEMENTATION, offers_certificate
from bench.evaluation.input_space import space_of
from bench.execution.sources import model_source
from bench.execution.twins import twin_job
from bench.registry import Entry, attack, protocol
from bench.settings.config import Config
from bench.settings.radii import parse_eps
from bench.settings.specs import parse_model, parse_spec, unique
from bench.store.cells import Cell, cell_identity, engine_for
from bench.system.progress import say
from bench.training.checkpoint import read_card
from bench.training.checkpoint_choice import differences, trained, trained_or_longest, training_note
from bench.training.job import Job, check_groups, make_job
from bench.training.loop import build_model

HALF_A_LEVEL = Fraction(1, 2 * 255)  # a radius below it was probably meant as a fraction of the pixel range


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

    `certificates` are the cells of what the model proves of itself, one per radius, empty where it offers nothing.
    `note` says of its training what the label does not: other epochs than bench.toml's, a reduced training set.
    `failure` says, in one line, why the row has no (or not all) numbers.
    `twins` are the undefended twins that attacks start from, by how the attack's option names them.
    """

    label: str
    dataset: str
    job: Job | None = None
    twins: dict[str, Job] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    certificates: list[Cell] = field(default_factory=list)
    note: str = ""
    failure: str = ""

    @property
    def train_seed(self) -> int | None:
        """None where weights came with the model."""
        return None if self.job is None or self.job.pretrained else self.job.seed


@dataclass(frozen=True)
class Matrix:
    """Everything a run needs: the data, the rows, the attacks, the radii."""

    data: dict[str, Dataset]
    rows: list[Row]
    attacks: list[AttackPlan]
    eps: list[Fraction]


def plan_matrix(config: Config, epochs: int | None, plugin_failures: list[str], *, as_named: bool = False) -> Matrix:
    """Check and resolve every name before anything is computed.

    Args:
        epochs: from the command line, for every recipe.
        plugin_failures: where a plugin failed to import, a model that is missing for it becomes a
            row that says so, and the others run.
        as_named: never take another checkpoint than the one named. Otherwise a model whose own has not been trained,
            and of whose training neither name nor `epochs` says anything, is the one that its recipe trained longest.

    Raises:
        BenchError: unknown names, bad radii, missing data.
    """
    run = config.run
    check_groups(config)
    eps = unique_eps(run.eps)
    attacks = plan_attacks(run.protocol, run.attacks, eps)
    if run.keep_adversarial and space_of(protocol[run.protocol]) != "pixel":
        raise BenchError(f"--keep-adversarial keeps images, and protocol '{run.protocol}' attacks normalised tensors.")
    data = load_datasets(config)
    rows = [
        row
        for name in data
        for text in dict.fromkeys(str(parse_model(text)) for text in run.models)
        for row in _rows(text, data[name], config, attacks, epochs, plugin_failures, as_named)
    ]
    return Matrix(data, rows, attacks, eps)


def _rows(
    text: str,
    data: Dataset,
    config: Config,
    attacks: list[AttackPlan],
    epochs: int | None,
    plugin_failures: list[str],
    as_named: bool,
) -> list[Row]:
    """One row per training seed; one alone of a model that comes with its weights."""
    rows = []
    for seed in config.run.train_seeds:
        row = Row(text, data.name)
        spec = parse_model(text)
        rows.append(row)
        try:
            row.job = make_job(spec, data, config, seed, epochs)
        except BenchError as error:
            if not plugin_failures or "unknown model" not in str(error):
                raise
            row.failure = f"{error} ({plugin_failures[0]})"
            break
        row.label = str(spec)
        free = not as_named and epochs is None and not (spec.recipe and spec.recipe.options)
        if free:
            row.job = trained_or_longest(row.job, config.paths.checkpoints)
        row.twins = _twins(row.job, attacks, data, config)
        if row.job.pretrained:
            break
        usual = make_job(spec, data, config, seed)
        if (had := row.job.settings["epochs"]) != usual.settings["epochs"] or differences(usual, row.job):
            row.note = training_note(usual, row.job) if free else f"{had} epoch{'s' if had != 1 else ''}"
    return rows


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
    radii = [parse_eps(text) for text in texts]
    for text, radius in zip(texts, radii, strict=True):
        if "/" not in text and 0 < radius < HALF_A_LEVEL:
            say(f"--eps {text} is {text}/255; {text} of the pixel range is {255 * float(text):g}")
    return list(dict.fromkeys(radii))


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
    _check_labels(plans)
    return plans


def _check_labels(plans: list[AttackPlan]) -> None:
    """Raise BenchError where two attacks would share the lines of a table."""
    known: dict[str, str] = {}
    for plan in plans:
        other = known.setdefault(plan.label, plan.entry.name)
        if other != plan.entry.name:
            raise BenchError(
                f"attacks '{other}' and '{plan.entry.name}' are both labelled '{plan.label}'; register one with "
                "another label=."
            )


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
    """Fill in the cells of a row whose weights, and whose twins', are there, and those of its certificates.

    A nested attack's cells form a chain of ascending radii.
    """
    assert row.job is not None
    job, data = row.job, matrix.data[row.dataset]
    net = build_model(job, data)
    source, facts = model_source(row.label, job, data, config.paths.checkpoints, net)
    row.note = ", ".join(filter(None, [row.note, _reduced(job, config.paths.checkpoints)]))
    twins = {name: model_source(twin.label, twin, data, config.paths.checkpoints) for name, twin in row.twins.items()}
    how = protocol[config.run.protocol]

    def cell(plan: AttackPlan | None, eps: Fraction, smaller: Cell | None = None) -> Cell:
        """None stands for the model's certificate, which depends on no protocol and draws nothing."""
        name = plan.entry.name if plan else CERTIFICATE
        options, seed = (plan.options, config.run.seed) if plan else ({}, 0)
        traits = plan.entry.traits if plan else {}
        twin = twins.get(str(options.get(traits.get("twin", ""))))
        chain = [] if smaller is None else [*smaller.identity["chain"], str(smaller.eps)]
        identity = cell_identity(
            model=facts,
            dataset=data.name,
            test_hash=data.test_hash,
            protocol=how.name if plan else CERTIFICATE,
            protocol_implementation=how.implementation() if plan else IMPLEMENTATION,
            attack=name,
            attack_implementation=plan.entry.implementation() if plan else IMPLEMENTATION,
            attack_options=options,
            eps=eps,
            seed=seed,
            device=device,
            engine=engine_for(traits, config.run.engine),
            batch=config.run.batch_size,
            twin=twin[1] if twin else None,
            chain=chain if traits.get("nested") else None,
        )
        return Cell(
            source=source,
            dataset=data.name,
            examples=len(data.x_test),
            protocol=how.name if plan else CERTIFICATE,
            attack=name,
            attack_label=plan.label if plan else CERTIFICATE,
            attack_options=options,
            eps=eps,
            seed=seed,
            batch=config.run.batch_size,
            identity=identity,
            certificate=plan is None,
            twin=twin[0] if twin else None,
            nested=bool(traits.get("nested")),
            smaller=smaller,
        )

    placed: dict[int, Cell] = {}
    for position, plan in sorted(enumerate(matrix.attacks), key=lambda item: item[1].eps):
        smaller = _next_smaller(plan, placed.values()) if plan.entry.traits.get("nested") else None
        placed[position] = cell(plan, plan.eps, smaller)
    row.cells += [cell for _, cell in sorted(placed.items())]
    if offers_certificate(net) and space_of(how) == "pixel":
        row.certificates += [cell(None, eps) for eps in matrix.eps]


def _next_smaller(plan: AttackPlan, cells: Iterable[Cell]) -> Cell | None:
    """The cell of the same attack at the largest radius below the plan's."""
    below = [c for c in cells if (c.attack, c.attack_label) == (plan.entry.name, plan.label) and c.eps < plan.eps]
    return max(below, key=lambda cell: cell.eps, default=None)


def _reduced(job: Job, checkpoints: Path) -> str:
    """What the card says of a training set that is smaller than published."""
    reduced = "" if job.pretrained else read_card(job.checkpoint(checkpoints)).get("training_set", {}).get("reduced")
    return f"reduced: {reduced}" if reduced else ""

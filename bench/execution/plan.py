"""From a request (configuration and command line) to rows of cells."""

from collections.abc import Sequence
from fractions import Fraction

from bench.data.declared import load_datasets
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError, unknown
from bench.evaluation.input_space import check_space, space_of
from bench.execution.matrix_rows import AttackPlan, FailedRow, Matrix, PlannedRow, failed
from bench.execution.undefended_twins import twin_job
from bench.registry import attack, model, protocol
from bench.settings.config import Config
from bench.settings.radii import parse_eps
from bench.settings.specs import parse_model, parse_spec, unique
from bench.store.stored_cells import attack_label
from bench.training.checkpoint_choice import differences, trained_or_longest, training_note
from bench.training.job_identity import Job, check_groups, make_job
from bench.training.loop import build_model


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
    _check_baseline(config, plugin_failures)
    data = load_datasets(config)
    rows = [
        row
        for name in data
        for text in dict.fromkeys(str(parse_model(text)) for text in run.models)
        for row in _rows(text, data[name], config, attacks, epochs=epochs, plugins=plugin_failures, as_named=as_named)
    ]
    return Matrix(data, tuple(rows), tuple(attacks), tuple(eps))


def _check_baseline(config: Config, plugin_failures: list[str]) -> None:
    """Raise BenchError for a baseline that no row can ever be; one of a plugin that failed to import is let pass."""
    name = parse_model(config.run.baseline).architecture.name
    if not plugin_failures and name not in model and name not in config.models:
        raise BenchError(f"[run] baseline: {unknown('model', name, [*model.names(), *config.models])}")


def _rows(
    text: str,
    data: Dataset,
    config: Config,
    attacks: Sequence[AttackPlan],
    *,
    epochs: int | None,
    plugins: Sequence[str],
    as_named: bool,
) -> list[PlannedRow | FailedRow]:
    """One row per training seed; one alone of a model that comes with its weights.

    Args:
        plugins: failures of plugins that one of the models may come from.
        as_named: as `plan_matrix` has it.
    """
    rows: list[PlannedRow | FailedRow] = []
    for seed in config.run.train_seeds:
        spec = parse_model(text)
        try:
            job = make_job(spec, data, config, seed, epochs)
        except BenchError as error:
            if not plugins or "unknown model" not in str(error):
                raise
            return [*rows, FailedRow(text, data.name, f"{error} ({plugins[0]})")]
        choose = not as_named and epochs is None and not (spec.recipe and spec.recipe.options)
        if choose:
            job = trained_or_longest(job, config.paths.checkpoints)
        note = "" if job.pretrained else _training_note(job, make_job(spec, data, config, seed), choose)
        row = PlannedRow(str(spec), data.name, job, _twins(job, attacks, data, config), note)
        why = "" if as_named else _misfit(row, data, config)
        rows.append(failed(row, why) if why else row)
        if job.pretrained:
            break
    return rows


def _misfit(row: PlannedRow, data: Dataset, config: Config) -> str:
    """Before anything is trained: why the model, with any weights, cannot be attacked in the protocol's space."""
    space = space_of(protocol[config.run.protocol])
    if space == "pixel":
        return ""
    try:
        check_space(build_model(row.job, data).eval(), space, as_pixels(data.x_test[:8]))
    except BenchError as error:
        return f"{row.label}: {error}."
    return ""


def _training_note(job: Job, usual: Job, chosen: bool) -> str:
    """What is unusual about the training of `job`, where anything is."""
    epochs = job.settings["epochs"]
    if epochs == usual.settings["epochs"] and not differences(usual, job):
        return ""
    return training_note(usual, job) if chosen else f"{epochs} epoch{'s' if epochs != 1 else ''}"


def _twins(job: Job, attacks: Sequence[AttackPlan], data: Dataset, config: Config) -> dict[str, Job]:
    options = [plan.entry.traits.twin for plan in attacks]
    named = {str(plan.options[option]) for plan, option in zip(attacks, options, strict=True) if option}
    found = {name: twin_job(job, data, config, name) for name in sorted(named)}
    return {name: twin for name, twin in found.items() if twin is not None}


def unique_eps(texts: list[str]) -> list[Fraction]:
    """The radii in the order given, without repetitions. Raises BenchError for a bad one or none."""
    if not texts:
        raise BenchError("--eps: give at least one radius, e.g. --eps 2,4,6,8.")
    return list(dict.fromkeys(parse_eps(text) for text in texts))


def plan_attacks(protocol_name: str, chosen: list[str], eps: list[Fraction]) -> list[AttackPlan]:
    """Every attack at every radius. Named attacks take the protocol's options, then those in their brackets."""
    how = protocol[protocol_name]
    of_protocol = {radius: how.target(radius) for radius in eps}
    found: dict[tuple[str, str], dict[Fraction, AttackPlan]] = {}
    for text in unique(chosen) or unique(name for names in of_protocol.values() for name in names):
        spec = parse_spec(text)
        entry = attack[spec.name]
        radii = [radius for radius in eps if chosen or spec.name in of_protocol[radius]]
        resolved = {r: entry.resolve({**of_protocol[r].get(spec.name, {}), **spec.options}) for r in radii}
        for options in resolved.values():
            entry.check_effect(spec.options, options)
        label = attack_label(how.name, entry.name, resolved)
        plans = {radius: AttackPlan(entry, label, options, radius) for radius, options in resolved.items()}
        # Options at their usual values make no other attack.
        found.setdefault((label, entry.name), plans)
    planned = [by_radius[radius] for radius in eps for by_radius in found.values() if radius in by_radius]
    _check_labels(planned)
    return planned


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

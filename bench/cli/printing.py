"""What the commands print."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from tabulate import tabulate

from bench.errors import BenchError
from bench.evaluation.input_space import Space, space_of
from bench.execution.cost import Cost
from bench.execution.matrix_rows import Matrix
from bench.registry import Registry, attack, dataset, model, protocol, recipe
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.store.store import Store
from bench.tables.broken_by import broken_by_lines, worst_case_notes
from bench.tables.doubts import MARK, why_unreliable
from bench.tables.markup import Format
from bench.tables.numbers import NOISE
from bench.tables.table import budget_lines, render, unreliable_lines
from bench.tables.table_lines import Line, make_lines
from bench.tables.verdicts import add_verdicts
from bench.training.checkpoint_files import read_card

# What a protocol's numbers are, by the space it attacks in.
NOTES: dict[Space, str] = {
    "pixel": "L∞ in pixel space, final images.",
    "normalised": "L∞ on normalised tensors clamped to [0, 1].\n"
    "CONTROL, NOT A MEASURE OF ROBUSTNESS: the clamp alone moves images, by far more than ε.",
}


def takes_colour() -> bool:
    """Whether what is printed goes to a terminal that wants escape codes."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def print_table(matrix: Matrix, store: Store, config: Config, form: Format, *, strict: bool = False) -> list[str]:
    """The table, and under it what its numbers are, what they cost, and why some may be made up.

    Returns what rows failed of, one line each; with `strict` unreliable numbers are failures too.
    """
    lines = make_lines(matrix.rows, store, config.run.examples)
    readings = add_verdicts(lines, matrix, config)
    colour = takes_colour()
    baseline = str(parse_model(config.run.baseline))
    typer.echo(render(lines, matrix.eps, baseline, form, colour), nl=False)
    failures = [line.failure for line in lines if line.failure and not line.absent]
    doubted = unreliable_lines(lines)
    marked = sum(bool(why_unreliable(doubts)) for line in lines for doubts in line.doubts.values())
    if strict and marked:
        failures.append(f"--strict: {marked} number{'s are' if marked > 1 else ' is'} unreliable")
    if form not in ("terminal", "markdown"):
        return failures
    typer.echo(f"\n{_caption(lines, config, baseline, colour or form == 'markdown')}\n")
    typer.echo(budget_lines(lines), nl=False)
    if broken := broken_by_lines(lines):
        typer.echo(f"\n{broken}", nl=False)
    for sentence in (*worst_case_notes(lines), *doubted, *readings):
        typer.echo(sentence)
    for line in lines:
        if line.failure:
            several = len(config.run.train_seeds) > 1 and line.train_seed is not None
            seed = f" (seed {line.train_seed})" if several else ""
            typer.echo(f"{line.model}{seed} on {line.dataset}: {line.failure}")
    return failures


def _caption(lines: Sequence[Line], config: Config, baseline: str, styled: bool) -> str:
    """What the numbers of a table are."""
    marks = "bold: best, underlined: second" if styled else "* best, _ second"
    seeds = config.run.train_seeds
    parts = [
        "Accuracy in per cent, clean and under attack, of the first n test images, with 95 % Wilson interval",
        f"{marks} (equal numbers share a mark)",
    ]
    if len(seeds) > 1:
        parts.append("over several train seeds: the mean, and the smallest–the largest in place of the interval")
    if any(line.model != baseline and line.robust for line in lines) and any(
        line.model == baseline and line.robust for line in lines
    ):
        joint = " for every seed" if len(seeds) > 1 else ""
        parts.append(
            f"in parentheses: gain over {baseline}, n.s. unless McNemar's exact test on the same images gives "
            f"p < {NOISE}{joint}"
        )
    if any(line.kind == "certificate" for line in lines):
        parts.append("certificate: proven right for every image of the ball; — where nothing is proven, or stored")
    if any(why_unreliable(doubts) for line in lines for doubts in line.doubts.values()):
        parts.append(f"{MARK} unreliable: a fault of model, attack or harness may have made it up, see below")
    named = f"train seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return (
        ";\n".join(parts) + f".\nProtocol {config.run.protocol}, attack seed {config.run.seed}, {named}, "
        f"{NOTES[space_of(protocol[config.run.protocol])]}"
    )


def print_cards(matrix: Matrix, config: Config) -> None:
    """What was trained, and how good it is on clean test images."""
    table = []
    for row in matrix.rows:
        if row.job is None or row.failure or row.job.pretrained:
            continue
        path = row.job.checkpoint(config.paths.checkpoints)
        card = read_card(path)
        table.append([row.dataset, row.label, card["seed"], *_quality(card), path])
    if table:
        typer.echo(tabulate(table, ["data set", "model", "seed", "epochs", "clean (95 %)", "checkpoint"], "plain"))


def print_cost(costs: Sequence[Cost], matrix: Matrix, device: torch.device) -> None:
    """The table of `--dry-run`."""
    cascades = sorted({plan.label for plan in matrix.attacks if plan.entry.traits.stages})
    table = [
        [
            cost.row.dataset,
            cost.row.label,
            _duration(cost.train_seconds),
            cost.cells,
            cost.shards,
            f"{cost.forwards:,}",
            f"{cost.backwards:,}",
            _duration(cost.seconds),
        ]
        for cost in costs
    ]
    header = ["data set", "model", "training", "cells", "shards", "forwards", "backwards", "attacks"]
    typer.echo(tabulate(table, header, "plain", disable_numparse=True))
    total = sum(cost.train_seconds + cost.seconds for cost in costs)
    about = "at most about" if cascades else "about"
    typer.echo(f"To do: {about} {_duration(total)} on one worker ({device}). Nothing was computed or stored.")
    if cascades:
        typer.echo(f"{', '.join(cascades)}: as if no image fell; every one that does saves the stages after it.")


def print_names(kind: str, config: Config) -> None:
    """Registered names with their first docstring line; models with their checkpoints."""
    registries: dict[str, Registry[Any]] = {
        "models": model,
        "attacks": attack,
        "datasets": dataset,
        "protocols": protocol,
        "recipes": recipe,
    }
    entries = list(registries[kind])
    typer.echo(tabulate([[entry.name, entry.summary] for entry in entries], tablefmt="plain"))
    if kind == "attacks":
        typer.echo("torchattacks:NAME  every attack class of torchattacks, e.g. torchattacks:MIFGSM[steps=20]")
    if kind == "models":
        typer.echo("robustbench:NAME  every CIFAR model of RobustBench's zoo, e.g. robustbench:Carmon2019Unlabeled")
        for name, user in config.models.items():
            typer.echo(f"{name}  bench.toml: {user.arch} {user.options} {user.checkpoint or ''}".rstrip())
        _print_checkpoints(config.paths.checkpoints)
    if kind == "datasets":
        for name, declared in config.datasets.items():
            typer.echo(f"{name}  bench.toml: {declared.path}")


def _print_checkpoints(folder: Path) -> None:
    table = []
    damaged = []
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            card = read_card(path)
            table.append([card["dataset"], card["label"], card["seed"], *_quality(card), path.stem])
        except BenchError as error:
            damaged.append(str(error))
    typer.echo(f"\nCheckpoints in {folder}:" if table else f"\nNo checkpoints in {folder} yet.")
    if table:
        typer.echo(tabulate(table, ["data set", "model", "seed", "epochs", "clean (95 %)", "file"], "plain"))
    if damaged:
        raise BenchError(" | ".join(damaged))


def _quality(card: dict[str, Any]) -> Sequence[str]:
    low, high = card["clean_interval"]
    share = f"{100 * card['clean_accuracy']:.2f} [{100 * low:.1f}, {100 * high:.1f}] n={card['clean_n']}"
    reduced = card.get("training_set", {}).get("reduced")
    return str(card["settings"].get("epochs", "?")), share + (f" (reduced training set: {reduced})" if reduced else "")


def _duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

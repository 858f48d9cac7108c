"""`bench table 1|2|3`: a table of the paper from the store, what it lacks, and the commands that fill it."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer

from bench.cli.printing import NOTES, takes_colour
from bench.cli.request import Request, asked_for
from bench.evaluation.input_space import space_of
from bench.execution.plan_cells import with_stored_cells
from bench.execution.run import run_matrix
from bench.registry import protocol
from bench.settings.radii import show_eps
from bench.settings.specs import split_list
from bench.store.store import Store
from bench.system.environment import pick_device
from bench.tables.markup import Format, markdown_text, style_of
from bench.tables.paper_layout import LEGEND, paper_notes, render_paper, training_lines
from bench.tables.paper_rows import Gap, gaps, paper_frame, plan_paper_table


def show_paper_table(number: int, request: Request, run: bool, form: Format, debug: bool) -> list[str]:
    """Print Table 1, 2 or 3; returns what rows failed of, one line each.

    Args:
        run: compute what the store lacks first, and train what has no checkpoint.
    """
    config, epochs = request.config, request.epochs
    only = {"datasets": request.given["dataset"], "models": request.given["models"]}
    # Every other option is repeated in the commands that fill the table.
    given = {
        name: value for name, value in request.given.items() if name not in ("dataset", "models", "attacks", "eps")
    }
    chosen = {key: split_list(text) if text else [] for key, text in only.items()}
    store = Store(config.paths.store)
    failed: list[str] = []
    if run:
        table = plan_paper_table(number, config, epochs, chosen["datasets"], chosen["models"], fetch=True)
        filled, _ = run_matrix(table.matrix, config, asked_for(config), no_train=False, debug=debug)
        failed = filled.failures
    table = plan_paper_table(number, config, epochs, chosen["datasets"], chosen["models"])
    table = replace(table, matrix=with_stored_cells(table.matrix, config, pick_device(config.run.device).type))
    frame = paper_frame(table, store, config.run.examples)
    failed += table.matrix.failures
    colour = form == "terminal" and takes_colour()
    typer.echo(render_paper(frame, form, colour), nl=False)
    if form in ("terminal", "markdown", "latex"):
        unread = {row.dataset for row in table.matrix.rows if row.failure and row.dataset not in table.matrix.data}
        lacking = {name: gap for name, gap in gaps(table, frame).items() if name not in unread}
        commands = fill_commands(number, lacking, only, given)
        space = f"Protocol {config.run.protocol}: {NOTES[space_of(protocol[config.run.protocol])]}"
        seeds = f"Attack seed {config.run.seed}, train seed {config.run.train_seed}."
        marks = "best, underlined: second" if colour or form != "terminal" else "* best, _ second"
        marks = f"Of ours, {'bold: ' if colour or form != 'terminal' else ''}{marks}."
        paragraphs = [f"Table {number} of the paper. {LEGEND} {marks} {' '.join(space.split())} {seeds}"]
        typer.echo(_below(paragraphs, training_lines(frame, unread), paper_notes(frame), commands, form), nl=False)
    return failed


def fill_commands(
    number: int, lacking: Mapping[str, Gap], only: Mapping[str, str | None], given: Mapping[str, Any]
) -> list[str]:
    """What fills the gaps: all of them at once, and one command for each data set."""
    if not lacking:
        return []
    names = {"datasets": "--dataset", "models": "--models"}
    chosen = [word for key, text in only.items() if text for word in (names[key], text)]
    every = [("table", str(number), "--run", *chosen, *_options(given))]
    for dataset, gap in lacking.items():
        what = ["--models", ",".join(gap.models), "--dataset", dataset]
        what += [
            "--attacks",
            ",".join(gap.attacks),
            "--eps",
            ",".join(show_eps(e).removesuffix("/255") for e in gap.eps),
        ]
        every.append(("run", *what, *_options(given)))
    return [shlex.join(["python", "-m", "bench", *words]) for words in every]


def _options(given: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in given.items():
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                words.append(f"--{name.replace('_', '-')}")
            elif item is not None and item is not False:
                words += [f"--{name.replace('_', '-')}", str(item)]
    return words


def _below(paragraphs: list[str], rows: list[str], notes: list[str], commands: list[str], form: Format) -> str:
    """What stands under the table: what its numbers are, its rows, the paper's slips, the commands."""
    text = style_of(form, False).text
    parts = [(text("Rows"), rows), (text("Where the paper disagrees with itself"), notes)]
    if form == "latex":
        lines = [text(line) for line in paragraphs]
        lines += [f"{head}: {'; '.join(text(item.rstrip('.')) for item in items)}." for head, items in parts if items]
        body = "\n\n".join(lines)
        comments = "".join(f"% {command}\n" for command in commands)
        return f"\n\\par\\medskip{{\\footnotesize\\raggedright {body}\\par}}\n{comments}"
    bullet = "- "
    out = ["", *(markdown_text(p) if form == "markdown" else p for p in paragraphs)]
    for head, items in parts:
        if items:
            out += ["", f"{head}:", *([""] if form == "markdown" else []), *(bullet + text(item) for item in items)]
    if commands:
        fence = "```" if form == "markdown" else ""
        out += ["", "To fill what is missing, all of it or one data set:", fence, *commands]
        out += [fence] if fence else []
    return "\n".join(out) + "\n"

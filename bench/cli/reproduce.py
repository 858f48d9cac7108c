"""`bench reproduce`: some of the store's numbers computed again, from their checkpoints."""

from typing import Annotated

import typer

from bench.cli.options import Checkpoints, ConfigFile, DataDir, Device, Plugin, StoreDir, settings
from bench.errors import BenchError
from bench.settings.specs import split_list

Only = Annotated[str | None, typer.Option(help="Cells of these alone, separated by commas.")]
Cells = Annotated[int, typer.Option(help="How many cells, at random.", min=1)]
Count = Annotated[int, typer.Option("--examples", help="Images of each, at most 250.", min=1, max=250)]
Pick = Annotated[int, typer.Option("--seed", help="Which cells.", min=0)]
Minutes = Annotated[float, typer.Option(help="Leave cells out whose 250 images took longer.", min=0)]


def reproduce(
    *,
    models: Only = None,
    dataset: Only = None,
    cells: Cells = 5,
    examples: Count = 200,
    seed: Pick = 0,
    minutes: Minutes = 2.0,
    device: Device = None,
    data_dir: DataDir = None,
    store: StoreDir = None,
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """Compute numbers of the store again from their checkpoints; exit code 2 where they come out otherwise."""
    merged, failures = settings(config, plugin, device=device, data=data_dir, store=store, checkpoints=checkpoints)
    from tabulate import tabulate

    from bench.execution.run import make_setting
    from bench.settings.radii import show_eps
    from bench.store.store import Store
    from bench.store.stored_cells import inventory
    from bench.system.environment import make_exact, pick_device
    from bench.system.progress import progress, say
    from bench.system.threads import threads
    from bench.verification.reproduce import ENOUGH, choose, names, only
    from bench.verification.reproduce import reproduce as compute_again

    everything, problems = inventory(Store(merged.paths.store))
    for problem in problems:
        say(f"bench: left out: {problem}")
    asked = only(everything, "data set", split_list(dataset or ""), lambda one: {one.cell.dataset})
    asked = only(asked, "model", split_list(models or ""), names)
    chosen, left_out = choose(asked, cells, seed, 60 * minutes)
    if not chosen:
        raise BenchError(f"store {merged.paths.store} has no complete cell of at most {minutes:g} min per 250 images.")
    make_exact()
    setting = make_setting(merged, pick_device(merged.run.device), False)
    found = []
    with threads(1), progress(len(chosen), "reproduce") as bar:
        for finding in compute_again(chosen, examples, seed, setting, merged.paths.checkpoints):
            found.append(finding)
            bar.advance(note=finding.stored.label)
    table = []
    reasons = list(dict.fromkeys(one.why for one in found if one.same is None))
    for one in found:
        cell, share = one.stored.cell, one.same
        where = [cell.dataset, one.stored.label, cell.protocol, cell.attack_label, show_eps(cell.eps)]
        if share is None:
            table.append([*where, "", f"not computed ({reasons.index(one.why) + 1})", ""])
        else:
            images = f"{one.first}–{one.first + share.n - 1}"
            table.append([*where, images, f"{share.hits} of {share.n} alike", "FAIL" if one.failed else "ok"])
    header = ["data set", "model", "protocol", "attack", "ε", "images", "clean prediction and verdict", ""]
    typer.echo(tabulate(table, header, "simple", disable_numparse=True))
    for number, why in enumerate(reasons, start=1):
        typer.echo(f"({number}) {why}")
    whole = len(asked) == len(everything)
    which = "cells in the store" if whole else f"of {len(everything)} cells in the store were asked for"
    typer.echo(f"\n{len(asked)} {which}, {left_out} of them left out for their cost (--minutes {minutes:g}).")
    broken = [
        f"{one.stored.label} {one.stored.cell.attack_label} at {show_eps(one.stored.cell.eps)}"
        for one in found
        if one.failed
    ]
    if broken:
        raise BenchError(f"fewer than {ENOUGH:.0%} of the images come out as stored: {'; '.join(broken)}.")
    if not any(one.same for one in found):
        raise BenchError("none of the chosen cells could be computed here; see above.")
    if failures:
        raise BenchError(failures[0])

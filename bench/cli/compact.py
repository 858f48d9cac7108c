"""`bench compact`: a store for keeping, one file of outcomes per complete cell."""

import typer

from bench.cli.options import ConfigFile, Plugin, StoreDir, settings
from bench.errors import BenchError


def compact(store_dir: StoreDir = None, config: ConfigFile = None, plugin: Plugin = None) -> None:
    """Put the shards of every complete cell into one file. Nothing else changes: runs go on, tables read the same."""
    from bench.store.store import Store
    from bench.store.stored_cells import inventory

    chosen, failures = settings(config, plugin, store=store_dir)
    store = Store(chosen.paths.store)
    if not store.folder.is_dir():
        raise BenchError(f"there is no store {store.folder}; name one with --store.")
    stored, problems = inventory(store)
    files = 0
    for one in stored:
        try:
            files += store.compact(one.cell)
        except BenchError as error:
            problems.append(str(error))
    typer.echo(f"{len(stored)} complete cells in {store.folder}, {files} files of single shards put together.")
    if problems or failures:
        raise BenchError(" | ".join([*problems, *failures]))

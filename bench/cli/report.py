"""`bench report`: everything the store holds as one HTML page."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Checkpoints, ConfigFile, Plugin, StoreDir, settings
from bench.errors import BenchError

Out = Annotated[Path, typer.Option(help="The file to write.")]
Serve = Annotated[bool, typer.Option("--serve", help="Write no file; show the page on localhost until Ctrl-C.")]
Port = Annotated[int, typer.Option(help="With --serve: the port; 0: a free one.", min=0, max=65535)]


def report(
    out: Out = Path("results/report.html"),
    serve: Serve = False,
    port: Port = 8000,
    store: StoreDir = None,
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """Write one self-contained HTML page of everything the store holds."""
    merged, failures = settings(config, plugin, store=store, checkpoints=checkpoints)
    from bench.page.build import build_page
    from bench.page.data import page_data
    from bench.page.serve import make_server
    from bench.store.store import Store
    from bench.system.files import write_atomically
    from bench.system.progress import say

    folder = merged.paths.store
    if not folder.is_dir():
        raise BenchError(f"--store: there is no folder {folder}; `python -m bench run` fills one.")
    data = page_data(Store(folder), merged.paths.checkpoints)
    for problem in data["problems"]:
        say(f"bench: left out: {problem}")
    page = build_page(data)
    if serve:
        with make_server(page, port) as server:
            typer.echo(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)")
            sys.stdout.flush()
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        return
    write_atomically(out, lambda part: part.write_text(page, encoding="utf-8"))
    typer.echo(f"{out}  ({len(data['rows'])} numbers, {len(page.encode()) / 1e6:.1f} MB)")
    if failures:
        raise BenchError(f"all done, but {len(failures)} plugin(s) failed: {failures[0]}")

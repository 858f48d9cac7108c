"""`bench list`: what there is."""

from typing import Annotated, Literal

import typer

from bench.cli.options import Checkpoints, ConfigFile, Plugin, settings
from bench.cli.request import fail

Kind = Literal["models", "attacks", "datasets", "protocols", "recipes"]


def list_names(
    kind: Annotated[Kind, typer.Argument()],
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """What there is: models, attacks, datasets, protocols or recipes."""
    merged, failures = settings(config, plugin, checkpoints=checkpoints)
    from bench.cli.printing import print_names

    print_names(kind, merged)
    fail([], failures)

"""Command-line options over bench.toml."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import BenchError
from bench.settings.specs import split_list

if TYPE_CHECKING:
    from bench.settings.config import Config

Models = Annotated[str | None, typer.Option(help="architecture[option=value,…]+recipe, separated by commas.")]
DatasetNames = Annotated[str | None, typer.Option("--dataset", help="Data sets, separated by commas.")]
Protocol = Annotated[str | None, typer.Option(help="See `bench list protocols`.")]
Attacks = Annotated[str | None, typer.Option(help="Only these attacks, separated by commas.")]
Eps = Annotated[str | None, typer.Option(help="Radii: 8, 2.5 or 8/255 (255ths of the pixel range), or 3%.")]
Examples = Annotated[
    int | None, typer.Option(help="The first N test images; whole shards of 250 are computed. 0: all.")
]
Seed = Annotated[int | None, typer.Option(help="Attack seed.")]
TrainSeed = Annotated[int | None, typer.Option(help="Training seed.")]
Seeds = Annotated[str | None, typer.Option(help="Training seeds, separated by commas; tables show their mean.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per batch, at most 250; part of a result's key.")]
Engine = Annotated[str | None, typer.Option(help="packed or reference; part of a result's key.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int | None, typer.Option(help="Processes; 0: one per core. Changes no number but by rounding.")]
KeepAdversarial = Annotated[
    bool | None, typer.Option("--keep-adversarial", help="Keep the attacked images beside their shard, for `recheck`.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of training, in place of bench.toml's.", min=0)]
DataDir = Annotated[Path | None, typer.Option(help="Where <name>.npz lies, or torchvision downloads to.")]
StoreDir = Annotated[Path | None, typer.Option("--store", help="Folder of the results.")]
Checkpoints = Annotated[Path | None, typer.Option(help="Folder of the trained weights.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A bench.toml of your own.")]
Plugin = Annotated[list[str] | None, typer.Option(help="A Python file that registers something; repeatable.")]


def settings(config: Path | None, plugins: list[str] | None, **options: Any) -> tuple["Config", list[str]]:
    """bench.toml with the options given on the command line, and the lines of plugins that failed to import.

    Args:
        options: `run` and `paths` keys; None where the user gave nothing. Text is split on commas for lists.
    """
    from pydantic import ValidationError

    from bench.settings.config import Config, load_config
    from bench.settings.plugins import load_plugins
    from bench.system.progress import say

    if options.get("seeds") is not None and options.get("train_seed") is not None:
        raise BenchError("--seeds and --train-seed name the same thing: give one of them.")
    base = load_config(config)
    content = base.model_dump()
    content["plugins"] = [*content["plugins"], *(plugins or [])]
    for key, value in options.items():
        if value is None:
            continue
        section = content["run"] if key in content["run"] else content["paths"]
        if key == "train_seed":
            section["seeds"] = []  # one was asked for, whatever bench.toml lists
        section[key] = split_list(value) if isinstance(section[key], list) else value
    try:
        merged = Config.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # Of an item in a list the option is the list's.
        name = next(str(part) for part in reversed(first["loc"]) if isinstance(part, str)).replace("_", "-")
        raise BenchError(f"--{name}: {first['msg']}, got {first['input']}.") from error
    _check_folders(merged)
    failures = load_plugins(merged.plugins)
    for failure in failures:
        say(f"bench: {failure}")
    return merged, failures


def _check_folders(config: "Config") -> None:
    """Before anything is computed. Raises BenchError where a file is in the place of a folder."""
    for option, folder in (
        ("--data-dir", config.paths.data),
        ("--store", config.paths.store),
        ("--checkpoints", config.paths.checkpoints),
    ):
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                raise BenchError(f"{option} {folder}: {place} is no folder; name another one.")

"""`bench figure 3|4|curve|solver|images`: PNG and SVG from the store and the checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.settings import (
    Attacks,
    BatchSize,
    Checkpoints,
    ConfigFile,
    DataDir,
    DatasetNames,
    Device,
    Epochs,
    Eps,
    Examples,
    Models,
    Plugin,
    Protocol,
    Seed,
    StoreDir,
    TrainSeed,
    settings,
)
from bench.errors import BenchError

Kind = Annotated[
    Literal["3", "4", "curve", "solver", "images"],
    typer.Argument(help="3, 4: the paper's; curve: one model under everything; solver: its residual; images: a grid."),
]
Out = Annotated[Path, typer.Option(help="Folder of the .png and .svg files.")]

# Figures of the paper are of its models; every other of [run].
MODELS = {"3": "lyadeq-no-orth,lyadeq", "4": "deq,lyadeq,lyadeq+trades,resnet56,resnet56+trades"}
EPS = {"4": "2,4,6,8,10,12,14,16,18,20", "3": "8", "solver": "8", "images": "8"}
EXAMPLES = {"3": 500, "solver": 500, "images": 100}


def figure(
    kind: Kind,
    out: Out = Path("results/figures"),
    models: Models = None,
    dataset: DatasetNames = None,
    protocol: Protocol = None,
    attacks: Attacks = None,
    eps: Eps = None,
    examples: Examples = None,
    seed: Seed = None,
    train_seed: TrainSeed = None,
    batch_size: BatchSize = None,
    device: Device = None,
    epochs: Epochs = None,
    data_dir: DataDir = None,
    store: StoreDir = None,
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """Draw a figure, one for each data set. 4 and curve come from the store, 3, solver and images are computed."""
    merged, failures = settings(
        config,
        plugin,
        models=models or MODELS.get(kind),
        datasets=dataset,
        protocol=protocol,
        attacks=attacks,
        eps=eps or EPS.get(kind),
        examples=EXAMPLES.get(kind) if examples is None else examples,
        seed=seed,
        train_seed=train_seed,
        batch_size=batch_size,
        device=device,
        data=data_dir,
        store=store,
        checkpoints=checkpoints,
    )
    from bench.figures.draw import draw

    paths, problems = draw(kind, merged, epochs, failures, out)
    for path in paths:
        typer.echo(path)
    if not paths and not problems:
        problems = ["nothing to draw."]
    if problems or failures:
        raise BenchError(" | ".join([*problems, *failures]))

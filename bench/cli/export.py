"""`bench export`: what the store holds, in the form of another project."""

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

Form = Annotated[Literal["robustbench"], typer.Argument(help="robustbench: its model_info JSON.")]
Out = Annotated[Path, typer.Option(help="Folder of the files: <data set>/Linf/<model>@<ε>.json.")]


def export(
    form: Form,
    out: Out = Path("model_info"),
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
    """Write a matrix' numbers from the store for another project; computes nothing. Takes the options of `run`."""
    merged, failures = settings(
        config,
        plugin,
        models=models,
        datasets=dataset,
        protocol=protocol,
        attacks=attacks,
        eps=eps,
        examples=examples,
        seed=seed,
        train_seed=train_seed,
        batch_size=batch_size,
        device=device,
        data=data_dir,
        store=store,
        checkpoints=checkpoints,
    )
    from bench.environment import pick_device
    from bench.files import write_json
    from bench.plan import add_stored_cells, plan_matrix
    from bench.report.model_info import model_infos
    from bench.store import Store

    matrix = plan_matrix(merged, epochs, failures)
    add_stored_cells(matrix, merged, pick_device(merged.run.device).type)
    results, problems = Store(merged.paths.store), list(failures)
    for row in matrix.rows:
        infos = model_infos(row, results, merged.run.examples)
        for path, info in infos.items():
            write_json(out / path, info)
            typer.echo(out / path)
        if not infos:
            problems.append(f"{row.label} on {row.dataset}: {row.failure or 'not in the store; `bench run` it first'}.")
    if problems:
        raise BenchError(" | ".join(problems))

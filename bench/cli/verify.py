"""`bench verify`: is a Lyapunov module's stability claim true for a trained model?"""

from typing import Annotated, Literal

import typer

from bench.cli.request import Request, with_options
from bench.errors import BenchError

Name = Annotated[str, typer.Argument(help="A trained model with a Lyapunov module: lyadeq, lyadeq-no-orth.")]
Radius = Annotated[str, typer.Option("--eps", help="Radius of PGD-20, behind the adversarial states: 8, 8/255 or 3%.")]
Count = Annotated[int, typer.Option("--examples", min=1, help="The first N test images.")]
Form = Annotated[Literal["terminal", "json"], typer.Option("--format", help="How it is written.")]


@with_options("dataset", "seed", "train_seed", "device", "epochs", "data_dir", "checkpoints", "config", "plugin")
def verify(request: Request, model: Name, eps: Radius = "8", examples: Count = 200, form: Form = "terminal") -> None:
    """Check a Lyapunov model's stability claim on clean and adversarial states. Exit code 2 where it is broken."""
    from bench.data.declared import load_datasets
    from bench.settings.radii import parse_eps
    from bench.settings.specs import parse_model
    from bench.system.environment import make_exact, pick_device
    from bench.system.threads import threads
    from bench.tables.verify_table import render
    from bench.training.job_identity import make_job
    from bench.verification.equilibria import verify_model

    config, radius, broken = request.config, parse_eps(eps), []
    run = config.run
    make_exact()
    for data in load_datasets(config).values():
        job, undefended = (
            make_job(parse_model(name), data, config, run.train_seed, request.epochs) for name in (model, "deq")
        )
        with threads(1):
            device = pick_device(run.device)
            folder = config.paths.checkpoints
            result = verify_model(
                job, undefended, data, folder, device, eps=float(radius), examples=examples, seed=run.seed
            )
        typer.echo(render(result, job.label, data.name, radius, form), nl=False)
        broken += [f"{job.label} on {data.name}: {name}" for name in result.broken("construction")]
    if broken:
        raise BenchError(f"does not hold, and should by construction: {'; '.join(broken)}.")
    if request.failures:
        raise BenchError(request.failures[0])

"""The options that commands share, declared once: a decorator adds them and hands the command what they resolve to."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli.options import (
    Attacks,
    BatchSize,
    Checkpoints,
    ConfigFile,
    DataDir,
    DatasetNames,
    Device,
    Engine,
    Epochs,
    Eps,
    Examples,
    KeepAdversarial,
    Models,
    Plugin,
    Protocol,
    Seed,
    Seeds,
    StoreDir,
    TrainSeed,
    Workers,
    settings,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.execution.matrix_rows import Matrix
    from bench.settings.config import Config
    from bench.store.store import Store

Command = Callable[..., None]
Format = Annotated[
    Literal["terminal", "markdown", "latex", "csv", "json"], typer.Option(help="How the table is written.")
]

debugging = False  # --debug was given: errors show their traceback

# In the order of --help.
_OPTIONS: dict[str, Any] = {
    "models": Models,
    "dataset": DatasetNames,
    "protocol": Protocol,
    "attacks": Attacks,
    "eps": Eps,
    "examples": Examples,
    "seed": Seed,
    "train_seed": TrainSeed,
    "seeds": Seeds,
    "batch_size": BatchSize,
    "engine": Engine,
    "device": Device,
    "workers": Workers,
    "keep_adversarial": KeepAdversarial,
    "epochs": Epochs,
    "data_dir": DataDir,
    "store": StoreDir,
    "checkpoints": Checkpoints,
    "config": ConfigFile,
    "plugin": Plugin,
}
_OF_RUNS = {"workers", "keep_adversarial"}
_OF_CELLS = {"protocol", "attacks", "eps", "examples", "seed", "batch_size", "engine", "store"}
_KEYS = {"dataset": "datasets", "data_dir": "data"}
_TYPED = {key: name for name, key in _KEYS.items()}


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: bench.toml with the options laid over it.
        epochs: of every recipe, where given.
        failures: a line for every plugin that failed to import.
        given: every shared option as it was typed, by its name in Python, None where it was not.
    """

    config: "Config"
    epochs: int | None
    failures: list[str]
    given: Mapping[str, Any]


def with_options(*names: str) -> Callable[[Command], Command]:
    """Gives a command the named shared options beside its own, and a Request as its first argument."""

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command).parameters.values())[1:]
        shared = {name: hint for name, hint in _OPTIONS.items() if name in names}

        @wraps(command)
        def run(**options: Any) -> None:
            typed = {name: options.pop(name) for name in shared}
            keys = {_KEYS.get(name, name): value for name, value in typed.items()}
            config, plugin, epochs = (keys.pop(name) for name in ("config", "plugin", "epochs"))
            merged, failures = settings(config, plugin, **keys)
            command(Request(merged, epochs, failures, typed), **options)

        kind = inspect.Parameter.KEYWORD_ONLY
        declared = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in shared.items()]
        parameters = [*declared, *(parameter.replace(kind=kind) for parameter in own)]
        # typer reads both; wraps would leave it those of the command.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


# For a command that computes cells, one that looks at cells in this process, and one on models alone.
run_command = with_options(*_OPTIONS)
matrix_command = with_options(*(name for name in _OPTIONS if name not in _OF_RUNS))
job_command = with_options(*(name for name in _OPTIONS if name not in _OF_RUNS | _OF_CELLS))


def stored_matrix(request: Request) -> tuple["Matrix", "Store"]:
    """The matrix with the cells of every row whose weights are there, and the store; computes nothing."""
    from bench.execution.plan import plan_matrix
    from bench.execution.plan_cells import with_stored_cells
    from bench.store.store import Store
    from bench.system.environment import pick_device

    config = request.config
    matrix = plan_matrix(config, request.epochs, request.failures)
    return with_stored_cells(matrix, config, pick_device(config.run.device).type), Store(config.paths.store)


def asked_for(config: "Config") -> dict[str, Any]:
    """What a manifest keeps of a request: the command line, and the configuration it resolved to."""
    return {"arguments": sys.argv[1:], "resolved": config.model_dump(mode="json")}


def unless_given(request: Request, **run: Any) -> Request:
    """The request with keys of [run] set where the command line says nothing of them."""
    silent = {key: value for key, value in run.items() if request.given[_TYPED.get(key, key)] is None}
    return replace(
        request, config=request.config.model_copy(update={"run": request.config.run.model_copy(update=silent)})
    )


def fail(problems: Sequence[str], plugin_failures: Sequence[str]) -> None:
    """End a command that did all it could. Raises BenchError for what failed in it, else for plugins that did."""
    if problems:
        raise BenchError(" | ".join(dict.fromkeys(problems)))
    if plugin_failures:
        raise BenchError(f"all done, but {len(plugin_failures)} plugin(s) failed: {plugin_failures[0]}")

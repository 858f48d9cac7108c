"""bench.toml: strict, every key documented there; the command line wins over it."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import BenchError, first_line, unknown


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(_Strict):
    """[run]: what `bench run` evaluates."""

    models: list[str] = Field(min_length=1)
    datasets: list[str] = Field(min_length=1)
    protocol: str
    attacks: list[str]
    eps: list[str]
    examples: int = Field(ge=0)
    seed: int = Field(ge=0)
    train_seed: int = Field(ge=0)
    seeds: list[Annotated[int, Field(ge=0)]]
    baseline: str
    device: str
    workers: int = Field(ge=0)
    batch_size: int = Field(ge=1, le=250)
    engine: Literal["packed", "reference"]
    keep_adversarial: bool

    @property
    def train_seeds(self) -> list[int]:
        """The training seeds asked for, without repetitions: `seeds`, else `train_seed` alone."""
        return list(dict.fromkeys(self.seeds)) or [self.train_seed]


class Paths(_Strict):
    """[paths], relative to the working directory."""

    data: Path
    store: Path
    checkpoints: Path


class Train(_Strict):
    """[train]: settings of every recipe (Section 5.2.1)."""

    epochs: dict[str, Annotated[int, Field(ge=0)]]
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0)
    betas: tuple[float, float]
    grad_clip: float = Field(ge=0)
    augment: bool
    autocast: bool
    save_seconds: float = Field(ge=0)
    threads: int = Field(ge=0)


class UserModel(_Strict):
    """[models.NAME]: an architecture under a name of its own, and weights trained elsewhere if it has them."""

    arch: str
    options: dict[str, Any] = {}
    checkpoint: Path | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    weights: str | None = None


class UserDataset(_Strict):
    """[datasets.NAME]: a data set of the user's own."""

    path: Path
    mean: list[float] | None = None
    std: list[float] | None = None
    augment: bool = False


class Config(_Strict):
    """The whole file."""

    run: Run
    paths: Paths
    train: Train
    plugins: list[str] = []
    options: dict[str, dict[str, Any]] = {}
    models: dict[str, UserModel] = {}
    datasets: dict[str, UserDataset] = {}


def load_config(path: Path | None) -> Config:
    """The file given, else ./bench.toml, else the one that comes with the package.

    A file may hold only what it changes: the packaged one fills in the rest.

    Raises:
        BenchError: no such file, not TOML, an unknown key or a value of the wrong type.
    """
    own = path or Path("bench.toml")
    if path and not path.is_file():
        raise BenchError(f"--config: there is no file {path}.")
    settings = _parse(_packaged(), "bench.toml")
    if own.is_file():
        settings = _merge(settings, _parse(own.read_bytes().decode("utf-8", "replace"), str(own)))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise _explain(error, own) from error


def _packaged() -> str:
    inside = files("bench").joinpath("bench.toml")
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[2] / "bench.toml").read_text(encoding="utf-8")


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # not TOML, or an int of more digits than Python reads
        raise BenchError(f"{where} is not valid TOML: {first_line(error)}.") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, path: Path) -> BenchError:
    first = error.errors()[0]
    *section, key = (str(part) for part in first["loc"])
    where = ".".join(section)
    if first["type"] == "extra_forbidden":
        named: dict[str, type[BaseModel]] = {
            "": Config,
            "run": Run,
            "paths": Paths,
            "train": Train,
            "models": UserModel,
            "datasets": UserDataset,
        }
        fields = named[section[0] if section else ""].model_fields
        return BenchError(f"{path}{f' [{where}]' if where else ''}: {unknown('key', key, fields)}")
    return BenchError(f"{path}: {'.'.join([*section, key])}: {first['msg']}.")

"""From what the user named to what is diagnosed: the model, its undefended twin, and the key of the findings."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from attacks.draws import Draws
from bench.cells import Source
from bench.config import Config
from bench.data.load import Dataset, as_pixels
from bench.diagnostics.context import Context
from bench.diagnostics.thresholds import CANARY_COLOUR, CANARY_RADII
from bench.errors import BenchError
from bench.files import read_json
from bench.names import parse_model
from bench.plan import Matrix, Row, plan_attacks, trained
from bench.registry import model as models
from bench.registry import protocol
from bench.spaces import space_of
from bench.training.checkpoint import card_path
from bench.training.job import Job, make_job
from bench.worker import load_model


@dataclass(frozen=True)
class Case:
    """One model on one data set under the protocol of the configuration.

    Attributes:
        row: with its cells, whose identities hold all that determines an attack's outcomes.
        twin: where the undefended twin is found, and its weights' hash; None: the model has none.
    """

    row: Row
    data: Dataset
    config: Config
    twin: tuple[Source, str] | None

    def identity(self) -> dict[str, Any]:
        """What determines every finding but the number of examples."""
        twin = {"architecture": self.twin[0].architecture, "weights": self.twin[1]} if self.twin else None
        return {"cells": [cell.identity for cell in self.row.cells], "twin": twin}


def make_case(row: Row, matrix: Matrix, config: Config, epochs: int | None = None) -> Case:
    """The case of a row that has its cells. Raises BenchError where the twin is not trained; the line says how."""
    assert row.job is not None
    data = matrix.data[row.dataset]
    job = twin_job(row.job, data, config, epochs)
    if job is None:
        return Case(row, data, config, None)
    path = job.checkpoint(config.paths.checkpoints)
    if not trained(job, config.paths.checkpoints):
        raise BenchError(
            f"diagnosing {row.label} takes its undefended twin, and there is no checkpoint of {job.label} on "
            f"{data.name}: {train_command([job.label], data.name, row.job.seed, epochs)}."
        )
    weights = str(read_json(card_path(path)).get("weights"))
    source = Source(job.label, job.architecture.name, dict(job.options), str(path), job.seed)
    return Case(row, data, config, (source, weights))


def train_command(labels: list[str], dataset: str, seed: int, epochs: int | None) -> str:
    """What to type to train these models."""
    more = (f" --train-seed {seed}" if seed else "") + (f" --epochs {epochs}" if epochs is not None else "")
    return f"run `python -m bench train --models '{','.join(labels)}' --dataset {dataset}{more}`"


def twin_job(job: Job, data: Dataset, config: Config, epochs: int | None = None) -> Job | None:
    """The training job of the model's undefended twin: its extractor with a linear head, by the recipe `standard`.

    A dense monotone layer reads the image through a fully connected one. Other networks have no twin, and
    neither has a twin.
    """
    name = _extractor(job)
    for entry in models:
        if name and entry.traits.get("twin_of") == name and entry.name != job.architecture.name:
            return make_job(parse_model(f"{entry.name}+standard"), data, config, job.seed, epochs)
    return None


def _extractor(job: Job) -> str:
    if "twin_of" in job.architecture.traits:
        return ""
    chosen = job.options.get("features", "fc" if job.options.get("form") == "dense" else "")
    if chosen == "auto":
        return "fc" if job.images.shape[0] == 1 else "resnet20"
    return str(chosen)


def make_context(case: Case, n: int, device: torch.device) -> Context:
    """Load what is diagnosed, on the first n test images.

    Raises BenchError for a damaged checkpoint, or a grid of radii without one above 0.
    """
    run, row, data = case.config.run, case.row, case.data
    assert row.job is not None
    job, source, weights = row.job, row.cells[0].source, row.cells[0].identity["model"]["weights"]

    def load(source: Source, weights: str) -> nn.Module:
        net = load_model(source, data, str(device), weights)
        return copy.deepcopy(net).eval().requires_grad_(False)

    def rebuild(replaced: Mapping[str, Any]) -> nn.Module:
        resolved = job.architecture.resolve({**job.options, **replaced})
        return load(replace(source, options=resolved), weights)

    radii = tuple(sorted({cell.eps for cell in row.cells} - {0}))
    if not radii:
        raise BenchError("--eps: a diagnosis takes at least one radius above 0.")
    colour = data.images.shape[0] == 3
    return Context(
        model=load(source, weights),
        twin=load(*case.twin) if case.twin else None,
        options=dict(job.options),
        rebuild=rebuild,
        x=as_pixels(data.x_test[:n]).to(device),
        y=data.y_test[:n].to(device),
        draws=Draws(run.seed, data.test_hash, range(n)),
        radii=radii,
        plan=lambda eps: plan_attacks(run.protocol, run.attacks, [eps]),
        space=space_of(protocol[run.protocol]),
        canary=CANARY_RADII.get(data.name, CANARY_COLOUR if colour else None),
        batch=run.batch_size,
    )

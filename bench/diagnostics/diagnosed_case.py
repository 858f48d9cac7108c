"""From what the user named to what is diagnosed: the model, its undefended twin, and the key of the findings."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.attacks.core.draws import Draws
from bench.data.load import Dataset, as_pixels
from bench.diagnostics.context import Context
from bench.errors import BenchError
from bench.evaluation.input_space import space_of
from bench.execution.matrix_rows import FailedRow, Matrix, Row
from bench.execution.model_sources import model_source
from bench.execution.plan import plan_attacks
from bench.execution.undefended_twins import twin_job
from bench.execution.worker import load_model
from bench.registry import protocol
from bench.settings.config import Config
from bench.store.cells import Source
from bench.system.canonical import canonical
from bench.thresholds import CANARY_COLOUR, CANARY_RADII
from bench.training.checkpoint_choice import trained
from bench.training.job_identity import Job


@dataclass(frozen=True)
class Case:
    """One model on one data set under the protocol of the configuration.

    Attributes:
        row: with its cells, whose identities hold all that determines an attack's outcomes.
        twin: where the undefended twin is found, and its weights' hash; None: there is none.
        no_twin: why, and how to come by one, where the model could have one.
    """

    row: Row
    data: Dataset
    config: Config
    twin: tuple[Source, str] | None
    no_twin: str = ""

    def identity(self) -> dict[str, Any]:
        """What determines every finding but the number of examples."""
        twin = {"architecture": self.twin[0].architecture, "weights": self.twin[1]} if self.twin else None
        return {"cells": sorted((cell.identity.to_json() for cell in self.row.cells), key=canonical), "twin": twin}


def make_case(row: Row, matrix: Matrix, config: Config) -> Case:
    """The case of a row whose weights are there; without its undefended twin where that is not trained.

    Raises BenchError for a damaged card.
    """
    assert row.job is not None
    data = matrix.data[row.dataset]
    job, why = _own_twin(row.job, data, config)
    if job is None:
        return Case(row, data, config, None, why)
    if not trained(job, config.paths.checkpoints):
        why = f"its undefended twin has no checkpoint on {data.name}; run {_training([job.label], data, job.seed)}"
        return Case(row, data, config, None, why)
    found = model_source(job.label, job, data, config.paths.checkpoints)
    return Case(row, data, config, (found.source, found.identity.weights))


def _own_twin(job: Job, data: Dataset, config: Config) -> tuple[Job | None, str]:
    """The undefended twin of a model; None where there is none, and why if it is not a twin itself."""
    try:
        return twin_job(job, data, config), ""
    except BenchError as error:
        return None, str(error).removesuffix(".")


def _training(labels: list[str], data: Dataset, seed: int, epochs: int | None = None) -> str:
    """The command that trains models."""
    more = (f" --train-seed {seed}" if seed else "") + (f" --epochs {epochs}" if epochs is not None else "")
    return f"`python -m bench train --models '{','.join(labels)}' --dataset {data.name}{more}`"


def check_trained(matrix: Matrix, config: Config, epochs: int | None) -> None:
    """Raise BenchError, with the command that trains them, where a model, or a twin that an attack starts from, has no
    checkpoint. The twin that diagnostics alone ask for may be missing.

    Args:
        epochs: from the command line, for every recipe.
    """
    for row in matrix.rows:
        if isinstance(row, FailedRow):
            continue
        data, folder = matrix.data[row.dataset], config.paths.checkpoints
        own = _own_twin(row.job, data, config)[0]
        needed = [job for job in (row.job, *row.twins.values()) if not trained(job, folder)]
        if needed:
            twins = {job.digest(): job for job in (*row.twins.values(), *([own] if own else []))}
            labels = [] if trained(row.job, folder) else [row.label]
            labels += [job.label for job in twins.values() if not trained(job, folder)]
            raise BenchError(
                f"no checkpoint of {', '.join(labels)} on {data.name}, which diagnosing {row.label} takes; run "
                f"{_training(labels, data, row.job.seed, epochs)}."
            )


def make_context(case: Case, n: int, device: torch.device) -> Context:
    """Load what is diagnosed, on the first n test images.

    Raises BenchError for a damaged checkpoint, or a grid of radii without one above 0.
    """
    run, row, data = case.config.run, case.row, case.data
    assert row.job is not None
    job, source, weights = row.job, row.cells[0].source, row.cells[0].identity.model.weights

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
        no_twin=case.no_twin,
        batch=run.batch_size,
        held_out=(as_pixels(data.x_held_out[:n]).to(device), data.y_held_out[:n].to(device)),
    )

"""From a model, an attack and a batch of examples to outcomes: the heart of a cell."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.cascade import Cascade, CascadeState
from bench.attacks.core.contract import Search, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.gradient_watch import Watch
from bench.data.load import as_pixels
from bench.evaluation.batch import Batch, Evaluated
from bench.evaluation.blame import blamed
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.input_space import Space, in_space
from bench.evaluation.judge import judge, outcome_columns
from bench.evaluation.outcomes import Outcomes
from bench.models.equilibrium.work_counter import counting
from bench.system.environment import device_of


class StageCheckpoint(Protocol):
    """Where the state of a batch, named by its first row, lies between a cascade's stages, with what was spent."""

    def load(self, start: int) -> tuple[CascadeState, Budget] | None: ...

    def save(self, start: int, reached: CascadeState, spent: Budget) -> None: ...


class NoCheckpoint:
    """Keeps nothing."""

    def load(self, start: int) -> tuple[CascadeState, Budget] | None:
        return None

    def save(self, start: int, reached: CascadeState, spent: Budget) -> None:
        return None


NO_CHECKPOINT = NoCheckpoint()


@dataclass(frozen=True)
class SmallerRadius:
    """What is known of the examples from a smaller radius.

    Attributes:
        outcomes: the columns, as `evaluate` gave them.
        images: adversarial images, and of those that stand the best found, (N, C, H, W), float32.
    """

    outcomes: Outcomes
    images: Tensor

    def part(self, rows: slice) -> "SmallerRadius":
        return SmallerRadius({name: column[rows] for name, column in self.outcomes.items()}, self.images[rows])


def evaluate(
    model: nn.Module,
    search: Search,
    batch: Batch,
    eps: float,
    *,
    classes: int,
    batch_size: int,
    space: Space = "pixel",
    checkpoint: StageCheckpoint = NO_CHECKPOINT,
    keep_images: bool = False,
    twin: nn.Module | None = None,
    smaller_radius: SmallerRadius | None = None,
) -> Evaluated:
    """Attack test examples and judge what comes out.

    Args:
        model: in eval mode, on its device.
        search: the attack, options bound.
        eps: radius in units of the space.
        batch_size: images per forward; batches are cut at multiples of it.
        space: what is attacked and judged, the model or its body behind the normalisation.
        checkpoint: what a cascade found before it was interrupted, and where it is kept from then on.
        keep_images: hand the images that are judged back.
        twin: the undefended twin, offered to the attack as a view.
        smaller_radius: outcomes and images at a smaller radius, which a cascade goes on from. Who was broken there is
            broken here, by the same image.

    Raises:
        BenchError: the model cannot be attacked in this space.
    """
    victim = in_space(model, space)
    budget, kept = Budget(), Budget()
    behind = None if twin is None else in_space(twin, space).model
    counted = Counted(victim.model, budget, classes, behind).eval()
    device = device_of(model)
    started = time.monotonic()
    parts, final = list[Outcomes](), list[Tensor]()
    with counting() as work, parametrize.cached():

        def spent() -> Budget:
            seconds = time.monotonic() - started
            total = replace(budget, f_evaluations=work.f_evaluations, vjps=work.vjps, seconds=seconds)
            total.add(kept)
            return total

        for start in range(0, len(batch), batch_size):
            rows = slice(start, start + batch_size)
            images, labels = victim.to_space(as_pixels(batch.x[rows]).to(device)), batch.y[rows].to(device)
            indices = batch.indices[rows]
            radius = torch.full((len(images),), eps, device=device)
            with torch.no_grad():
                clean = counted(images).argmax(1)
            # What was kept last holds what was spent on the batches before, too.
            before = None if smaller_radius is None else smaller_radius.part(rows)
            reached, kept = checkpoint.load(start) or (_begin(before), kept)
            counted.watch.begin(images, eps, reached.met)
            pursue = _resumable(search, reached, checkpoint, start, spent, counted.watch)
            draws = batch.draws(indices)
            with blamed(counted):
                attacked = run_attack(pursue, counted, images, labels, radius, draws, pixel_space=space == "pixel")
            if keep_images:
                final.append(attacked.cpu())
            verdict = judge(victim, counted, attacked)
            judged = outcome_columns(
                images,
                labels,
                clean,
                attacked,
                verdict,
                indices=indices,
                unit=victim.unit,
                broken_by=reached.broken_by,
                gradient=counted.watch.met,
            )
            parts.append(judged if before is None else _carried(judged, before.outcomes))
    outcomes = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Evaluated(outcomes, spent(), torch.cat(final) if keep_images else None)


def _begin(smaller_radius: SmallerRadius | None) -> CascadeState:
    if smaller_radius is None:
        return CascadeState()
    return CascadeState(0, smaller_radius.images, torch.tensor(smaller_radius.outcomes["broken_by"]))


def _carried(judged: Outcomes, before: Outcomes) -> Outcomes:
    """The verdict, but for examples that were broken at a smaller radius the verdict from there: same image."""
    return {
        name: np.where(before["broken"], before[name], column) if name in before else column
        for name, column in judged.items()
    }


def _resumable(
    search: Search,
    reached: CascadeState,
    checkpoint: StageCheckpoint,
    start: int,
    spent: Callable[[], Budget],
    watch: Watch,
) -> Search:
    """A cascade that keeps its state after every stage; any other search as it is."""
    if not isinstance(search, Cascade):
        return search

    def save() -> None:
        reached.met = watch.met
        checkpoint.save(start, reached, spent())

    def cascade(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        return search.resume(model, x, y, eps, draws, reached=reached, after=save)

    return cascade

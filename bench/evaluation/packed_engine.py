"""Many cells of one model at once: the engine of all attacks that are ascents of `bench.attacks.core.sign_ascent`."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.gradient_watch import NONE
from bench.attacks.core.sign_ascent import SignAscent, ascend
from bench.data.load import as_pixels
from bench.evaluation.batch import Batch, Evaluated
from bench.evaluation.blame import blamed
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.input_space import Space, Victim, in_space
from bench.evaluation.judge import Judged, judge, outcome_columns
from bench.evaluation.outcomes import Outcomes
from bench.models.equilibrium.work_counter import counting
from bench.system.environment import device_of

TOGETHER = 16  # ascents at once: bounds the memory, whatever the number of radii

Ascents = Sequence[tuple[SignAscent, float]]


def evaluate_packed(
    model: nn.Module,
    ascents: Ascents,
    batch: Batch,
    *,
    classes: int,
    batch_size: int,
    forward_size: int,
    space: Space = "pixel",
    keep_images: bool = False,
) -> list[Evaluated]:
    """What `bench.evaluation.reference_engine.evaluate` gives for each attack, faster: arguments as there, but

    Args:
        ascents: the attacks, and each one's radius in units of the space.
        forward_size: images per forward, at most; an attack's batch is never cut, so less than `batch_size` counts as
            that.

    Images that are misclassified clean are not attacked, since no attack can break them: they stand in the outcomes
    with the clean prediction and an `linf` of 0. A gradient that several attacks share is divided among their budgets.
    Gradients are those of the model's folded form (`bench.models.inference.folding`), verdicts are the model's own.
    """
    if not ascents:
        return []
    if len(ascents) > TOGETHER:
        return [
            one
            for part in (slice(TOGETHER), slice(TOGETHER, None))
            for one in evaluate_packed(
                model,
                ascents[part],
                batch,
                classes=classes,
                batch_size=batch_size,
                forward_size=forward_size,
                space=space,
                keep_images=keep_images,
            )
        ]
    victim, budget, ascending = in_space(model, space), Budget(), Budget()
    counted = Counted(victim.model, budget, classes).eval()
    device = device_of(model)
    gradients, parts = np.zeros(len(ascents)), [list[Outcomes]() for _ in ascents]
    final = [list[Tensor]() for _ in ascents]
    started = time.monotonic()
    with counting() as work, parametrize.cached():

        def spent() -> Budget:
            seconds = time.monotonic() - started
            return replace(budget, f_evaluations=work.f_evaluations, vjps=work.vjps, seconds=seconds)

        for start in range(0, len(batch), batch_size):
            cut = slice(start, start + batch_size)
            images, labels = victim.to_space(as_pixels(batch.x[cut]).to(device)), batch.y[cut].to(device)
            indices = batch.indices[cut]
            calm = judge(victim, counted, images)
            right = (calm.predicted == labels).nonzero()[:, 0]
            before = spent()
            theirs = batch.draws(indices).of(right.tolist())
            folded = counted.folded(images)
            with blamed(counted):
                attacked, took, met = _attack(
                    folded, images[right], labels[right], ascents, theirs, forward_size, space
                )
            ascending.add(spent().less(before))
            gradients += took
            verdicts = _judge_each(victim, counted, attacked, forward_size)
            for number, (found, verdict) in enumerate(zip(attacked, verdicts, strict=True)):
                whole = images.index_copy(0, right, found)
                judged = Judged(
                    calm.predicted.index_copy(0, right, verdict.predicted),
                    calm.residual.index_copy(0, right, verdict.residual),
                )
                gradient = torch.full_like(labels, NONE, dtype=torch.int8).index_copy(0, right, met[number])
                parts[number].append(
                    outcome_columns(
                        images,
                        labels,
                        calm.predicted,
                        whole,
                        judged,
                        indices=indices,
                        unit=victim.unit,
                        gradient=gradient,
                    )
                )
                if keep_images:
                    final[number].append(whole.cpu())
        total = spent()
    outcomes = [{name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts]
    budgets = ascending.shared(gradients.tolist())
    for one, rest in zip(budgets, total.less(ascending).shared([1.0] * len(ascents)), strict=True):
        one.add(rest)
    images_of = [torch.cat(parts) if keep_images else None for parts in final]
    return [Evaluated(*one) for one in zip(outcomes, budgets, images_of, strict=True)]


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, ascents: Ascents, draws: Draws, forward_size: int, space: Space
) -> tuple[Tensor, Sequence[float], Sequence[Tensor]]:
    """All attacks' images, (attacks, N, C, H, W), under the contract of every attack, what each took, and what its
    gradients were like."""
    count, took, met = len(ascents), [0.0] * len(ascents), [torch.zeros_like(y, dtype=torch.int8)] * len(ascents)
    if not len(x):
        return x.expand(count, *x.shape), took, met

    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        n = len(x) // count
        each = [(ascent, radius) for (ascent, _), radius in zip(ascents, eps.split(n), strict=True)]
        ascended = ascend(model, x[:n], y[:n], each, draws, rows=forward_size)
        took[:], met[:] = ascended.gradients, ascended.met
        return torch.cat(ascended.images)

    search.__name__ = "signed gradient ascent"
    radii = torch.tensor([radius for _, radius in ascents], dtype=x.dtype, device=x.device).repeat_interleave(len(x))
    many = x.repeat(count, 1, 1, 1)
    found = run_attack(search, model, many, y.repeat(count), radii, draws, pixel_space=space == "pixel")
    return found.view(count, *x.shape), took, met


def _judge_each(victim: Victim, counted: Counted, images: Tensor, forward_size: int) -> list[Judged]:
    """Prediction and residual for each ascent's images, as many ascents a forward as `forward_size` has room for."""
    count, n = images.shape[:2]
    if not n:
        nothing = torch.zeros(0, device=images.device)
        return [Judged(nothing.long(), nothing)] * count
    found: list[Judged] = []
    for part in images.split(max(1, forward_size // n)):
        verdict = judge(victim, counted, part.flatten(0, 1))
        found += map(Judged, verdict.predicted.split(n), verdict.residual.split(n))
    return found

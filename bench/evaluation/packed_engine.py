"""Many cells of one model at once: the engine of all attacks that are ascents of `bench.attacks.core.sign_ascent`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.sign_ascent import SignAscent, ascend
from bench.data.load import as_pixels
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.input_space import Space, Victim, in_space
from bench.evaluation.judge import judge, outcome_columns
from bench.evaluation.outcomes import Outcomes
from bench.models.equilibrium.work_counter import counting
from bench.system.environment import device_of

TOGETHER = 16  # ascents at once: bounds the memory, whatever the number of radii

Ascents = Sequence[tuple[SignAscent, float]]


def evaluate_packed(
    model: nn.Module,
    classes: int,
    ascents: Ascents,
    x: Tensor,
    y: Tensor,
    indices: Sequence[int],
    draws: Callable[[Sequence[int]], Draws],
    batch: int,
    rows: int,
    space: Space = "pixel",
    final: Sequence[list[Tensor]] | None = None,
) -> list[tuple[Outcomes, Budget]]:
    """What `bench.evaluation.reference_engine.evaluate` gives for each ascent, faster: arguments as there, but

    Args:
        ascents: the attacks, and each one's radius in units of the space.
        rows: images per forward, at most; a ascent's batch is never cut, so less than `batch` counts as that.
        final: per ascent, where the images that are judged go.

    Images that are misclassified clean are not attacked, since no attack can break them: they stand in the outcomes
    with the clean prediction and an `linf` of 0. A gradient that several ascents share is divided among their budgets.
    Gradients are those of the model's folded form (`bench.models.inference.folding`), verdicts are the model's own.
    """
    if not ascents:
        return []
    if len(ascents) > TOGETHER:
        return [
            one
            for part in (slice(TOGETHER), slice(TOGETHER, None))
            for one in evaluate_packed(
                model, classes, ascents[part], x, y, indices, draws, batch, rows, space, final and final[part]
            )
        ]
    victim, budget, ascending = in_space(model, space), Budget(), Budget()
    counted = Counted(victim.model, budget, classes).eval()
    device = device_of(model)
    gradients, parts = np.zeros(len(ascents)), [list[Outcomes]() for _ in ascents]
    started = time.monotonic()
    with counting() as work, parametrize.cached():

        def spent() -> Budget:
            seconds = time.monotonic() - started
            return replace(budget, f_evaluations=work.f_evaluations, vjps=work.vjps, seconds=seconds)

        for start in range(0, len(x), batch):
            cut = slice(start, start + batch)
            images, labels = victim.to_space(as_pixels(x[cut]).to(device)), y[cut].to(device)
            clean, clean_residual = judge(victim, counted, images)
            right = (clean == labels).nonzero()[:, 0]
            before = spent()
            theirs = draws(indices[cut]).of(right.tolist())
            attacked, took = _attack(counted.folded(images), images[right], labels[right], ascents, theirs, rows, space)
            ascending.add(spent().less(before))
            gradients += took
            for number, (ascent, (predicted, residual)) in enumerate(
                zip(attacked, _judge_each(victim, counted, attacked, rows), strict=True)
            ):
                whole = images.index_copy(0, right, ascent)
                adversarial, left = clean.index_copy(0, right, predicted), clean_residual.index_copy(0, right, residual)
                parts[number].append(
                    outcome_columns(victim, images, labels, clean, whole, adversarial, left, indices[cut])
                )
                if final is not None:
                    final[number].append(whole.cpu())
        total = spent()
    outcomes = [{name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts]
    budgets = ascending.shared(gradients.tolist())
    for one, rest in zip(budgets, total.less(ascending).shared([1.0] * len(ascents)), strict=True):
        one.add(rest)
    return list(zip(outcomes, budgets, strict=True))


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, ascents: Ascents, draws: Draws, rows: int, space: Space
) -> tuple[Tensor, Sequence[float]]:
    """All ascents' images, (ascents, N, C, H, W), under the contract of every attack, and what each ascent took."""
    count, took = len(ascents), [0.0] * len(ascents)
    if not len(x):
        return x.expand(count, *x.shape), took

    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        n = len(x) // count
        each = [(ascent, radius) for (ascent, _), radius in zip(ascents, eps.split(n), strict=True)]
        ascended = ascend(model, x[:n], y[:n], each, draws, rows=rows)
        took[:] = ascended.gradients
        return torch.cat(ascended.images)

    radii = torch.tensor([radius for _, radius in ascents], dtype=x.dtype, device=x.device).repeat_interleave(len(x))
    many = x.repeat(count, 1, 1, 1)
    found = run_attack(search, model, many, y.repeat(count), radii, draws, pixel_space=space == "pixel")
    return found.view(count, *x.shape), took


def _judge_each(victim: Victim, counted: Counted, images: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Prediction and residual for each ascent's images, as many ascents a forward as `rows` has room for."""
    count, n = images.shape[:2]
    if not n:
        nothing = torch.zeros(0, device=images.device)
        return [(nothing.long(), nothing)] * count
    found: list[tuple[Tensor, Tensor]] = []
    for part in images.split(max(1, rows // n)):
        predicted, residual = judge(victim, counted, part.flatten(0, 1))
        found += zip(predicted.split(n), residual.split(n), strict=True)
    return found

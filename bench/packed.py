"""Many cells of one model at once: the engine of all attacks that are lanes of `attacks.climb`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attacks.climb import Lane, climb
from attacks.contract import run_attack
from attacks.draws import Draws
from bench.budget import Budget, Counted
from bench.data.load import as_pixels
from bench.environment import device_of
from bench.spaces import Space, Victim, in_space
from bench.verdict import Outcomes, columns, look
from models.counting import counting

TOGETHER = 16  # lanes at once: bounds the memory, whatever the number of radii

Lanes = Sequence[tuple[Lane, float]]


def evaluate_packed(
    model: nn.Module,
    classes: int,
    lanes: Lanes,
    x: Tensor,
    y: Tensor,
    indices: Sequence[int],
    draws: Callable[[Sequence[int]], Draws],
    batch: int,
    rows: int,
    space: Space = "pixel",
    final: Sequence[list[Tensor]] | None = None,
) -> list[tuple[Outcomes, Budget]]:
    """What `bench.outcomes.evaluate` gives for each lane, faster: arguments as there, but

    Args:
        lanes: the attacks, and each one's radius in units of the space.
        rows: images per forward, at most; a lane's batch is never cut, so less than `batch` counts as that.
        final: per lane, where the images that are judged go.

    Images that are misclassified clean are not attacked, since no attack can break them: they stand in the outcomes
    with the clean prediction and an `linf` of 0. A gradient that several lanes share is divided among their budgets.
    Gradients are those of the model's folded form (`models.folding`), verdicts are the model's own.
    """
    if not lanes:
        return []
    if len(lanes) > TOGETHER:
        return [
            one
            for part in (slice(TOGETHER), slice(TOGETHER, None))
            for one in evaluate_packed(
                model, classes, lanes[part], x, y, indices, draws, batch, rows, space, final and final[part]
            )
        ]
    victim, budget, climbing = in_space(model, space), Budget(), Budget()
    counted = Counted(victim.model, budget, classes).eval()
    device = device_of(model)
    gradients, parts = np.zeros(len(lanes)), [list[Outcomes]() for _ in lanes]
    started = time.monotonic()
    with counting() as work, parametrize.cached():

        def spent() -> Budget:
            seconds = time.monotonic() - started
            return replace(budget, f_evaluations=work.f_evaluations, vjps=work.vjps, seconds=seconds)

        for start in range(0, len(x), batch):
            cut = slice(start, start + batch)
            images, labels = victim.enter(as_pixels(x[cut]).to(device)), y[cut].to(device)
            clean, calm = look(victim, counted, images)
            right = (clean == labels).nonzero()[:, 0]
            before = spent()
            theirs = draws(indices[cut]).of(right.tolist())
            attacked, took = _attack(counted.folded(images), images[right], labels[right], lanes, theirs, rows, space)
            climbing.add(spent().less(before))
            gradients += took
            for number, (lane, (predicted, residual)) in enumerate(
                zip(attacked, _looks(victim, counted, attacked, rows), strict=True)
            ):
                whole = images.index_copy(0, right, lane)
                adversarial, left = clean.index_copy(0, right, predicted), calm.index_copy(0, right, residual)
                parts[number].append(columns(victim, images, labels, clean, whole, adversarial, left, indices[cut]))
                if final is not None:
                    final[number].append(whole.cpu())
        total = spent()
    outcomes = [{name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts]
    budgets = climbing.shared(gradients.tolist())
    for one, rest in zip(budgets, total.less(climbing).shared([1.0] * len(lanes)), strict=True):
        one.add(rest)
    return list(zip(outcomes, budgets, strict=True))


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, lanes: Lanes, draws: Draws, rows: int, space: Space
) -> tuple[Tensor, Sequence[float]]:
    """All lanes' images, (lanes, N, C, H, W), under the contract of every attack, and what each lane took."""
    count, took = len(lanes), [0.0] * len(lanes)
    if not len(x):
        return x.expand(count, *x.shape), took

    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        n = len(x) // count
        each = [(lane, radius) for (lane, _), radius in zip(lanes, eps.split(n), strict=True)]
        climbed = climb(model, x[:n], y[:n], each, draws, rows=rows)
        took[:] = climbed.gradients
        return torch.cat(climbed.images)

    radii = torch.tensor([radius for _, radius in lanes], dtype=x.dtype, device=x.device).repeat_interleave(len(x))
    many = x.repeat(count, 1, 1, 1)
    found = run_attack(search, model, many, y.repeat(count), radii, draws, pixel_space=space == "pixel")
    return found.view(count, *x.shape), took


def _looks(victim: Victim, counted: Counted, images: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Prediction and residual for each lane's images, as many lanes a forward as `rows` has room for."""
    count, n = images.shape[:2]
    if not n:
        nothing = torch.zeros(0, device=images.device)
        return [(nothing.long(), nothing)] * count
    found: list[tuple[Tensor, Tensor]] = []
    for part in images.split(max(1, rows // n)):
        predicted, residual = look(victim, counted, part.flatten(0, 1))
        found += zip(predicted.split(n), residual.split(n), strict=True)
    return found

"""Targeted margins from many starts: the search along a model's own gradient that goes on where single ones stop."""

from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.core.active_set import keep_active
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import margin, margin_targeted
from bench.registry import attack

Start = Literal["corner", "uniform", "best"]
Count = Annotated[int, Field(ge=1)]

WIDE_ROUNDS, NEAREST = 2, 4  # rounds that aim at all classes; how many classes the later ones aim at
NEARER = 0.01  # share of the missing margin that a round must gain to count
TRACKS = 256  # examples times classes aimed at, in one forward
DRAWN = 10_000  # restarts below are other attacks'


@dataclass(frozen=True)
class Setting:
    """How one round searches. `step` is the first step's size in units of ε."""

    start: Start
    step: float
    momentum: float


@dataclass(frozen=True)
class Searched:
    """What was found, and by which round.

    Attributes:
        images: misclassified where anything was found, else those of the largest margin met, (N, C, H, W).
        broken_in: number of the round that broke the example, −1: none, (N,); `rounds`: it was wrong at once.
        gradients: spent by each round, summed over examples.
    """

    images: Tensor
    broken_in: Tensor
    gradients: list[int]

    @property
    def yields(self) -> list[int]:
        """Examples that each round broke."""
        return [int((self.broken_in == number).sum()) for number in range(len(self.gradients))]


def setting(number: int) -> Setting:
    """Of a round: starts, first steps and momenta in turn, no two of them in step with each other."""
    starts: tuple[Start, ...] = ("corner", "uniform", "best")
    return Setting(starts[number % 3], (1.0, 0.5)[number % 2], (0.75, 0.0, 0.9)[(number + number // 3) % 3])


@dataclass
class _Standing:
    """The examples that no round broke yet, one entry each."""

    rows: Tensor  # their positions in the batch
    x: Tensor
    y: Tensor
    eps: Tensor
    best: Tensor
    reached: Tensor  # margin of `best`
    nearest: Tensor  # largest z_t − z_y met, per class, (N, classes)
    idle: Tensor  # rounds in a row that brought it no nearer


def search_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    steps: int = 200,
    targets: int = 9,
    patience: int = 5,
    rounds: int = 35,
) -> Searched:
    """Signed steps up z_t − z_y, for several classes t at once, in rounds of different starts, step sizes and momenta.

    The first two rounds aim at the `targets` likeliest classes, later ones at the four that came nearest. A round's
    step falls on a cosine to nothing. An example leaves when it is misclassified, and after `patience` rounds in a row
    that brought it no nearer: what happens to it depends on no other example.

    Args:
        model: images in [0, 1] to logits (N, classes).
        x, y, eps: images (N, C, H, W), labels (N,), radii (N,).
        draws: the examples' random draws.
        steps: gradient steps a round and class.
        targets: classes aimed at, at most.
        rounds: at most.
    """
    with torch.no_grad():
        logits = model(x)
    gaps = (logits - logits.gather(1, y[:, None])).scatter(1, y[:, None], -torch.inf)
    reached, zero = margin(logits, y), torch.zeros_like(y)
    state = _Standing(torch.arange(len(x), device=x.device), x, y, eps, x.clone(), reached, gaps, zero)
    images, broken_in = x.clone(), torch.full_like(y, -1)
    broken_in[reached > 0] = rounds
    keep_active(state, reached <= 0)
    gradients: list[int] = []
    for number in range(rounds):
        if not len(state.rows):
            break
        count = min(targets if number < WIDE_ROUNDS else min(targets, NEAREST), state.nearest.shape[1] - 1)
        before = state.reached.clone()
        gradients.append(_round(model, state, draws.of(state.rows.tolist()), number, count, steps))
        images[state.rows] = state.best
        broken = state.reached > 0
        broken_in[state.rows[broken]] = number
        nearer = state.reached - before >= NEARER * before.abs()
        state.idle = torch.where(nearer, 0, state.idle + 1)
        keep_active(state, ~broken & (state.idle < patience))
    return Searched(images, broken_in, gradients)


def _round(model: nn.Module, state: _Standing, draws: Draws, number: int, count: int, steps: int) -> int:
    """One round for all that stand, `state` brought up to date; returns the gradients it took."""
    how = setting(number)
    aims = state.nearest.argsort(1, descending=True)[:, :count]
    starts = torch.stack([_start(state, draws, how.start, DRAWN + 100 * number + k) for k in range(count)], 1)
    parts = torch.arange(len(state.rows), device=aims.device).split(max(1, TRACKS // count))
    return sum(_climb(model, state, part, aims[part], starts[part], how, steps) for part in parts)


@dataclass
class _Tracks:
    """Iterates, each of one example on its way to one class."""

    example: Tensor  # which of those that stand
    aim: Tensor
    images: Tensor
    velocity: Tensor


def _climb(
    model: nn.Module, state: _Standing, part: Tensor, aims: Tensor, starts: Tensor, how: Setting, steps: int
) -> int:
    """All classes of some examples at once; an example's first misclassified iterate ends its tracks."""
    first = starts.flatten(0, 1)
    tracks = _Tracks(part.repeat_interleave(aims.shape[1]), aims.flatten(), first, torch.zeros_like(first))
    spent = 0
    for k in range(steps):
        if not len(tracks.images):
            break
        own = state.y[tracks.example]
        with torch.enable_grad():
            at = tracks.images.detach().requires_grad_()
            logits = model(at)
            slope = torch.autograd.grad(margin_targeted(logits, own, tracks.aim).sum(), at)[0].nan_to_num()
        spent += len(slope)
        _note(model, state, tracks, logits.detach())
        size = slope.abs().flatten(1).mean(1).clamp_min(torch.finfo(slope.dtype).tiny).view(-1, 1, 1, 1)
        tracks.velocity = how.momentum * tracks.velocity + slope / size
        keep_active(tracks, state.reached[tracks.example] <= 0)
        x, radius = state.x[tracks.example], state.eps[tracks.example].view(-1, 1, 1, 1)
        alpha = how.step * radius * (1 + cos(pi * k / steps)) / 2
        ahead = tracks.images + alpha * tracks.velocity.sign()
        tracks.images = torch.minimum(torch.maximum(ahead, x - radius), x + radius).clamp(0, 1)
    return spent


def _note(model: nn.Module, state: _Standing, tracks: _Tracks, logits: Tensor) -> None:
    """Keep each example's iterate of the largest margin; of equal ones that of the likeliest class."""
    own, example = state.y[tracks.example], tracks.example
    met = margin_targeted(logits, own, tracks.aim).nan_to_num(nan=-torch.inf)
    state.nearest.view(-1).scatter_reduce_(0, example * state.nearest.shape[1] + tracks.aim, met, "amax")
    value = margin(logits, own).nan_to_num(nan=-torch.inf)
    top = torch.full_like(state.reached, -torch.inf).scatter_reduce_(0, example, value, "amax")
    place = torch.arange(len(value), device=value.device)
    place = torch.where(value == top[example], place, len(value))
    winner = torch.full_like(state.y, len(value)).scatter_reduce_(0, example, place, "amin")
    better = (top > state.reached).nonzero().flatten()
    images, reached = tracks.images[winner[better]], top[better]
    wrong = reached > 0
    if bool(wrong.any()):  # the verdict is a forward without gradients
        with torch.no_grad():
            reached[wrong] = margin(model(images[wrong]), state.y[better[wrong]])
    taken = reached > state.reached[better]
    state.best[better[taken]], state.reached[better[taken]] = images[taken], reached[taken]


def _start(state: _Standing, draws: Draws, start: Start, restart: int) -> Tensor:
    if start == "best":
        return state.best
    unit = draws.unit(state.x.shape[1:], restart).to(state.x)
    return (state.x + state.eps.view(-1, 1, 1, 1) * (unit.sign() if start == "corner" else unit)).clamp(0, 1)


@attack("margin", label="margin")
def margin_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    steps: Count = 200,
    targets: Count = 9,
    patience: Count = 5,
    rounds: Count = 35,
) -> Tensor:
    """Targeted margins from many starts along the model's own gradient, until several rounds bring nothing.

    Args:
        steps: gradient steps a round and class.
        targets: classes aimed at in the first two rounds, at most.
        patience: rounds in a row without coming nearer, after which an example is given up.
        rounds: at most.
    """
    return search_margins(
        model, x, y, eps, draws, steps=steps, targets=targets, patience=patience, rounds=rounds
    ).images

"""Square (Andriushchenko et al., ECCV 2020), L∞: windows of the image set to x ± ε at random, kept where they help."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from bench.attacks.core.active_set import keep_active
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import margin
from bench.models.inference.local_recompute import LocalRecompute

SHARE = 0.8  # p: the window's share of the image at first
# Queries from which on the share is half as large as before: the paper's schedule for 10,000 queries, not rescaled.
_HALVINGS = (11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)

SMALL = 8  # pixels; windows of it and below leave most of an image as it is

_FEW = 4  # a look at further proposals costs the same for few examples as for many: not for less than a quarter


@dataclass
class _Search:
    """The examples still searched, one entry each."""

    rows: Tensor  # their positions in the batch
    y: Tensor
    low: Tensor
    high: Tensor
    best: Tensor
    margin: Tensor
    changed: Tensor  # the query that changed `best` last, 0 where none did
    at: Tensor  # how many proposals of the present windows are dealt with


@dataclass(frozen=True)
class _Windows:
    """Proposals of consecutive queries, with windows of one size.

    Attributes:
        first, side: the first of these queries; the windows' side in pixels.
        top, left: the windows' corners, (N, queries).
        up: per channel, whether the window is set to x + ε rather than x − ε, (N, queries, C).
        same: the last of these queries with the same proposal, −1 where there is none, (N, queries).
    """

    first: int
    side: int
    top: Tensor
    left: Tensor
    up: Tensor
    same: Tensor


@torch.no_grad()
def square(
    model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, *, queries: int, restart: int = 0
) -> Tensor:
    """Per example the first misclassified image met, else the one of the largest margin; like x.

    A proposal that leaves the image as it is, or that was made before and the image has not changed since, would be
    answered as before: it counts as a query, but the model, which is taken to be deterministic, is not asked, and the
    example goes on to its next one. An example's proposals are its own, whatever else is in the batch.

    Args:
        model: images in [0, 1] to logits (N, classes).
        x, y, eps: images (N, C, H, W), labels (N,), radii (N,).
        draws: one of them is all that an example ever draws.
        queries: proposals per example, besides the first image, which has vertical stripes.
        restart: which of the examples' draws it is.
    """
    channels, _, width = x.shape[1:]
    stripes = channels * width
    drawn = draws.unit((stripes + queries * (2 + channels),), restart).to(x.device)
    radius = eps.view(-1, 1, 1, 1)
    low, high = (x - radius).clamp_min(0), (x + radius).clamp_max(1)
    begin = torch.where(drawn[:, :stripes].view(-1, channels, 1, width) > 0, high, low)
    logits = model(begin)
    rows = torch.arange(len(x), device=x.device)
    result = begin.clone()
    state = _Search(rows, y, low, high, begin, margin(logits, y), torch.zeros_like(y), torch.zeros_like(y))
    keep_active(state, logits.argmax(1) == y)
    recompute = None
    for windows in _proposals(drawn[:, stripes:].view(len(x), queries, -1), x.shape):
        if recompute is None and windows.side <= SMALL and len(state.rows):
            recompute = LocalRecompute(model, state.best, windows.side)
        state.at = torch.zeros_like(state.rows)
        while len(state.rows) and bool((state.at < windows.top.shape[1]).any()):
            _round(model, recompute, state, windows, result)
    result[state.rows] = state.best
    return result


def _round(
    model: nn.Module, recompute: LocalRecompute | None, state: _Search, windows: _Windows, result: Tensor
) -> None:
    """One question per example, whose proposal is kept where it misclassifies or raises the margin."""
    asked, images, corners = _questions(state, windows)
    if not len(asked):
        return
    y = state.y[asked]
    logits = recompute.logits_of(asked, images, *corners, windows.side) if recompute else model(images)
    reached, wrong = margin(logits, y), logits.argmax(1) != y
    better = wrong | (reached > state.margin[asked])
    taken = asked[better]
    if recompute:
        recompute.accept(better)
    state.best[taken], state.margin[taken] = images[better], reached[better]
    state.changed[taken] = windows.first + state.at[taken] - 1
    if bool(wrong.any()):
        result[state.rows[asked[wrong]]] = images[wrong]
        right = torch.ones_like(state.rows, dtype=torch.bool)
        right[asked[wrong]] = False
        keep_active(state, right)
        if recompute:
            recompute.keep_rows(right)


def _questions(state: _Search, windows: _Windows) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Which examples have something to ask, their proposals, and top and left of the windows.

    The proposals of those that have not are dealt with; they look at their next ones as long as they are many.
    """
    waiting = (state.at < windows.top.shape[1]).nonzero().flatten()
    asked, images, numbers = [], [], []
    while True:
        proposals, useful = _propose(state, windows, waiting)
        asked.append(waiting[useful])
        images.append(proposals)
        numbers.append(state.at[asked[-1]])
        state.at[waiting] += 1
        waiting = waiting[~useful]
        waiting = waiting[state.at[waiting] < windows.top.shape[1]]
        if len(waiting) <= len(state.rows) / _FEW:
            which = torch.cat(asked)
            place = (state.rows[which], torch.cat(numbers))
            return which, torch.cat(images), (windows.top[place], windows.left[place])


def _propose(state: _Search, windows: _Windows, which: Tensor) -> tuple[Tensor, Tensor]:
    """The present proposals of these examples that have to be asked about, and whose they are, boolean."""
    channels, _, width = state.best.shape[1:]
    rows, at = state.rows[which], state.at[which]
    side = torch.arange(windows.side, device=rows.device)
    corner = windows.top[rows, at] * width + windows.left[rows, at]
    pixels = (corner[:, None] + (width * side[:, None] + side).flatten())[:, None]
    place = (which[:, None, None], torch.arange(channels, device=rows.device)[:, None], pixels)
    low, high, before = (images.flatten(2)[place] for images in (state.low, state.high, state.best))
    after = torch.where(windows.up[rows, at, :, None], high, low)
    useful = (windows.same[rows, at] < state.changed[which]) & (after != before).flatten(1).any(1)
    proposals = state.best.flatten(2)[which[useful]]
    proposals.scatter_(2, pixels.expand_as(after)[useful], after[useful])
    return proposals.view(-1, *state.best.shape[1:]), useful


def window_sides(queries: int, height: int, width: int) -> list[int]:
    """The windows' side in pixels at each query."""
    sides = []
    for query in range(queries):
        share = SHARE / 2 ** sum(query >= at for at in _HALVINGS)
        sides.append(min(max(round(math.sqrt(share * height * width)), 1), height, width))
    return sides


def _proposals(drawn: Tensor, shape: torch.Size) -> Iterator[_Windows]:
    """Proposals from uniform draws on [−1, 1), (N, queries, 2 + C).

    As in the authors' code, no window touches the last row or column, unless it is as high or as wide as the image.
    """
    _, _, height, width = shape
    first = 0
    for side, group in groupby(window_sides(drawn.shape[1], height, width)):
        queries = drawn[:, first : first + len(list(group))]
        # Half of a draw plus a half may round up to 1.
        top, left = (
            ((queries[:, :, axis] + 1) / 2 * (length - side)).long().clamp(0, max(length - side - 1, 0))
            for axis, length in enumerate((height, width))
        )
        up = queries[:, :, 2:] > 0
        code = top * width + left
        for channel in up.unbind(2):
            code = 2 * code + channel
        yield _Windows(first, side, top, left, up, _last_same(code, first))
        first += queries.shape[1]


def _last_same(code: Tensor, first: int) -> Tensor:
    """Per entry of (N, queries) the number of the last query before it with the same code; −1 where there is none."""
    order = code.argsort(dim=1, stable=True)
    ranked = code.gather(1, order)
    earlier = torch.where(ranked[:, 1:] == ranked[:, :-1], order[:, :-1] + first, -1)
    return torch.full_like(code, -1).scatter_(1, order[:, 1:], earlier)

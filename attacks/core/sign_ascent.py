"""Signed gradient ascent for many attacks and radii at once: every gradient they share is taken once.

All of a matrix' I-FGSM and PGD cells ascend the same loss from known starts, so their gradients can be taken in one
batch. And until the ball holds it back, I-FGSM makes the same steps at every radius: k steps of α from the clean
image stay strictly inside every ball of radius ε > kα. So the radii share all gradients but those at the boundary,
for the paper's four 12 in place of 24. With one ascent a forward each gets the bits that it has alone; more of
them round differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.attacks.core.draws import Draws
from bench.attacks.core.gradient_watch import codes_of, peaks

# From x and radius (N, 1, 1, 1): what takes an iterate to the nearest image of the ball and of the pixel range; it may
# write over the iterate.
Projection = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]

INSIDE = 1 - 1e-4  # share of ε that an iterate is clear of the boundary with
ROUNDING = 2.0**-23  # by which a step in [−1, 1] may come out longer than α


@dataclass(frozen=True)
class SignAscent:
    """An attack of signed gradient steps, without its radius.

    Attributes:
        project: makes what puts an iterate back into ball and pixel range.
        steps: gradient steps, ≥ 0.
        alpha: step size, in units of the images.
        restart: number of the draw it starts from; None: it starts from the clean image.
    """

    project: Projection
    steps: int
    alpha: float
    restart: int | None = None


@dataclass(frozen=True)
class Ascended:
    """Per ascent the last iterate, (N, C, H, W), how many gradients of the batch it took, shared ones divided, and what
    they were like, codes of `bench.attacks.core.gradient_watch`, int8 (N,)."""

    images: list[Tensor]
    gradients: list[float]
    met: list[Tensor]


@dataclass
class _Track:
    """An iterate, the ascents that it is the iterate of, and the largest entry of every gradient on its way, (N,): −1
    before the first, NaN after one that has a NaN."""

    ascents: list[int]
    images: Tensor
    peak: Tensor


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, ascents: Sequence[tuple[SignAscent, Tensor]], draws: Draws, *, rows: int
) -> Ascended:
    """Run all ascents, each with its radius per example, (N,); the last iterates count.

    Args:
        model: images to logits (N, classes).
        x, y: images (N, C, H, W) and labels (N,).
        ascents: the attacks; in the result in the same order.
        draws: the examples' random draws.
        rows: images per forward, at most; less than N counts as N, so that no ascent's batch is ever cut.
    """
    result, gradients = [x] * len(ascents), [0.0] * len(ascents)
    highest = [x.new_full((len(x),), -1.0)] * len(ascents)
    if not len(x):
        return Ascended(result, gradients, [codes_of(peak) for peak in highest])
    projections = [ascent.project(x, eps.view(-1, 1, 1, 1)) for ascent, eps in ascents]
    least = [float(eps.min()) for _, eps in ascents]
    step, tracks = 0, _starts(x, ascents, draws)
    while tracks:
        going = []
        for track in tracks:
            for ascent in track.ascents:
                if ascents[ascent][0].steps == step:
                    result[ascent] = track.images.clone()  # a part of a whole forward's images would keep all of them
                    highest[ascent] = track.peak
            track.ascents = [ascent for ascent in track.ascents if ascents[ascent][0].steps > step]
            if track.ascents:
                going.append(track)
        tracks, step = [], step + 1
        for track, (sign, here) in zip(going, _signs(model, going, y, rows), strict=True):
            peak = torch.maximum(track.peak, here)
            alpha = ascents[track.ascents[0]][0].alpha
            ahead = torch.add(track.images, sign, alpha=alpha, out=sign)
            shared = [ascent for ascent in track.ascents if step * (alpha + ROUNDING) < INSIDE * least[ascent]]
            groups = [shared] * bool(shared) + [[ascent] for ascent in track.ascents if ascent not in shared]
            for number, group in enumerate(groups, start=1):
                own = ahead if number == len(groups) else ahead.clone()
                tracks.append(_Track(group, projections[group[0]](own), peak))
            for ascent in track.ascents:
                gradients[ascent] += 1 / len(track.ascents)
    return Ascended(result, gradients, [codes_of(peak) for peak in highest])


def _starts(x: Tensor, ascents: Sequence[tuple[SignAscent, Tensor]], draws: Draws) -> list[_Track]:
    """One track for all ascents that make the same steps while inside their balls; one for each other ascent."""
    # Outside [0, 1] (normalised tensors) the very first projection may move an image, and by the radius.
    pixels = bool(((x >= 0) & (x <= 1)).all())
    restarts = {ascent.restart for ascent, _ in ascents if ascent.restart is not None}
    units = {restart: draws.unit(x.shape[1:], restart).to(x) for restart in restarts}
    tracks: dict[object, _Track] = {}
    unseen = x.new_full((len(x),), -1.0)
    for number, (ascent, eps) in enumerate(ascents):
        if ascent.restart is None:
            key = (ascent.project, ascent.alpha) if pixels else number
            tracks.setdefault(key, _Track([], x, unseen)).ascents.append(number)
        else:
            start = units[ascent.restart] * eps.view(-1, 1, 1, 1)
            tracks[number] = _Track([number], (x + start).clamp_(0, 1), unseen)
    return list(tracks.values())


def _signs(model: nn.Module, tracks: list[_Track], y: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Sign and largest entries of every track's input gradient, as many tracks a forward as `rows` has room for."""
    together = max(1, rows // len(y))
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(tracks), together):
        part = tracks[first : first + together]
        images = part[0].images if len(part) == 1 else torch.cat([track.images for track in part])
        labels = y if len(part) == 1 else y.repeat(len(part))
        gradient = input_gradient(model, images, labels, len(y))
        found += zip(gradient.sign().split(len(y)), peaks(gradient).split(len(y)), strict=True)
    return found


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, per: int = 0) -> Tensor:
    """∂/∂x of the cross-entropy's sum divided by `per` (0: by N, the mean), shaped like x. Of the mean, as torchattacks
    takes it: its factor 1/N cannot change a sign but can change how a product rounds."""
    x = x.detach().requires_grad_()
    loss = functional.cross_entropy(model(x), y, reduction="sum") / (per or len(x))
    return torch.autograd.grad(loss, x)[0]

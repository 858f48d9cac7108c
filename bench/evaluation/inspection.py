"""A look at a model before a row of numbers is computed: a few forwards of what `bench check` asks at length.

What makes numbers impossible fails the row, with one line: a forward that raises, or changes weights or statistics;
logits of another shape or type, or that are not finite. What makes them untrustworthy marks every number of the row
`unreliable` with a sentence under the table: noise (also noise that hangs on the image), logits that depend on batch
mates, probabilities in place of logits. Of the gradient the same, but for attacks that take one: not finite, 0 on
most images or at every black or white pixel, or leading the wrong way. A gradient that is missing is said by the attack
that asks for it (`blame`): others need none. A model that writes into its input is lent a copy, and that is all.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from bench.attacks.core.contract import ContractError, frozen
from bench.attacks.core.gradient_watch import ZERO, codes_of, peaks
from bench.data.load import Dataset, as_pixels
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.derivatives import margin_gradient
from bench.system.environment import device_of

GRID, NOISE = 4, 2  # images of the data set, as they are and off the 8-bit grid; and images of noise
OFF = 0.4 / 255  # how far off the grid, at most
HAIR = 1e-6  # moves no honest network's logits
SAME = 1e-6  # of the largest logit: rounding of repeated kernels
MATES = 1e-4  # of the largest logit: what batch mates may change, by rounding and a solver's tolerance
SHAKES = 1e-2  # of the largest logit: what HAIR may change
INWARD = 0.02  # how far from the bounds of [0, 1] a gradient is looked at again, of the way to the middle
ALONG = 1e-3  # a step along the gradient


@dataclass(frozen=True)
class Note:
    """Why the numbers of a row are not to be trusted, one sentence.

    Attributes:
        gradient: whether it concerns attacks that take gradients alone.
    """

    kind: str
    sentence: str
    gradient: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(data: Dataset) -> Tensor:
    """Ten fixed images in [0, 1]: of the test set, the same off the 8-bit grid, and noise, (10, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    real = as_pixels(data.x_test[torch.arange(GRID) % len(data.x_test)])
    off = (real + OFF * (2 * torch.rand(real.shape, generator=generator) - 1)).clamp(0, 1)
    return torch.cat([real, off, torch.rand(NOISE, *real.shape[1:], generator=generator)])


def inspect(net: nn.Module, data: Dataset) -> list[Note]:
    """What makes the model's numbers untrustworthy.

    Args:
        net: in eval mode, on its device. Left as it is, and torch's random state too.

    Raises:
        ContractError: it cannot be evaluated at all.
    """
    device = device_of(net)
    x = probe(data).to(device)
    model = Counted(net, Budget(), data.images.classes).eval()
    before = [(name, value.clone()) for name, value in net.state_dict().items() if isinstance(value, Tensor)]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(net), parametrize.cached():
        notes = _notes(model, x)
    after = net.state_dict()
    changed = next((name for name, value in before if not torch.equal(value, after[name])), None)
    if changed is not None:
        raise ContractError(
            f"a forward in eval mode changes the model's '{changed}', so that numbers depend on what was asked before; "
            "keep its state fixed in eval()"
        )
    return notes


def _notes(model: Counted, x: Tensor) -> list[Note]:
    with torch.no_grad():
        # Together: what moves one, and what a hair moves.
        logits, shifted = model(torch.cat([x, (x - HAIR).clamp_min(0)])).split(len(x))
        _check(logits)
        again = model(torch.cat([x, (x - HAIR).clamp_min(0)]))[: len(x)]
        scale = max(1.0, float(logits.abs().max()))
        if float((again - logits).abs().max()) > SAME * scale:
            return [_noise("the same images get other logits each time: there is noise or dropout in eval mode")]
        moved = (shifted - logits).abs().amax(1).median()
        if float(moved) > SHAKES * scale:
            return [_noise(f"logits jump when an image moves by {HAIR:g}: there is noise that hangs on the image")]
        notes = []
        apart = torch.cat([model(part) for part in x.split([1, 3, len(x) - 4])])
        gap = float((apart - logits).abs().max())
        if gap > MATES * scale:
            sentence = f"logits depend on batch mates (by {gap:.2g}): something stops or normalises batch-wide"
            notes.append(Note("batch mates", sentence))
        if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
            sentence = "the model returns probabilities, not logits: their losses' gradients vanish; leave softmax out"
            notes.append(Note("probabilities", sentence))
    # Probabilities have next to no gradient; that is said already.
    return notes + ([] if any(note.kind == "probabilities" for note in notes) else _of_gradient(model, x))


def _noise(sentence: str) -> Note:
    return Note("noise", f"{sentence}, which attacks would have to average over")


def _check(logits: Tensor) -> None:
    if logits.dtype != torch.float32:
        raise ContractError(f"the model returns {logits.dtype} logits; compute in float32: .float() its weights")
    if not bool(logits.isfinite().all()):
        first = int((~logits.isfinite().all(1)).nonzero()[0]) % (2 * GRID + NOISE)
        kind = "test images" if first < GRID else "images off the 8-bit grid" if first < 2 * GRID else "images of noise"
        raise ContractError(f"the model returns logits that are not finite for {kind}")


def _of_gradient(model: Counted, x: Tensor) -> list[Note]:
    """At the class predicted; nothing where there is none, or it cannot be taken."""
    x = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(x)
            first, second = logits.topk(2).values.unbind(1)
            # Besides the cross-entropy, which saturates, the logits' own margin.
            losses = functional.cross_entropy(logits, logits.argmax(1), reduction="sum"), (first - second).sum()
            own, margin = (torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses)
    except (ContractError, RuntimeError):
        return []
    if not bool(own.isfinite().all() and margin.isfinite().all()):
        bad = int((~own.isfinite() | ~margin.isfinite()).flatten(1).any(1).sum())
        sentence = f"the gradient is not finite on {bad} of {len(x)} images tried: attacks take no step from there"
        return [Note("gradient not finite", sentence, gradient=True)]
    zero = codes_of(peaks(own)) == ZERO
    if 2 * int(zero.sum()) > len(x):
        cause = (
            "and the logits' margin has none either (rounding, or another step function?)"
            if bool((codes_of(peaks(margin))[zero] == ZERO).all())
            else "while the logits' margin has one: softmax saturates in float32; attack with apgd[loss=margin]"
        )
        sentence = f"the cross-entropy's gradient is 0 on {int(zero.sum())} of {len(x)} images tried, {cause}"
        return [Note("gradient zero", sentence, gradient=True)]
    found = _at_the_bounds(model, x.detach(), logits.argmax(1), margin), _against(model, x.detach(), margin)
    return [note for note in found if note]


def _at_the_bounds(model: Counted, x: Tensor, y: Tensor, gradient: Tensor) -> Note | None:
    """Whether pixels of 0, or of 1, have no gradient, and the same pixels beside the bound have one."""
    beside = margin_gradient(model, x.lerp(torch.full_like(x, 0.5), INWARD), y) != 0
    for bound in (x == 0, x == 1):
        if bool((beside & bound).any()) and not bool((gradient[bound] != 0).any()):
            sentence = (
                "the gradient is 0 at all black or all white pixels, and not beside them: a clamp or ReLU at the input "
                "stops attacks there; leave it out, images are in [0, 1]"
            )
            return Note("gradient zero at the bounds", sentence, gradient=True)
    return None


@torch.no_grad()
def _against(model: Counted, x: Tensor, gradient: Tensor) -> Note | None:
    """Whether a small step along the margin's gradient lowers the margin."""

    def margin(at: Tensor) -> Tensor:
        first, second = model(at).gather(1, classes).unbind(1)
        return first - second

    classes = model(x).topk(2).indices
    gained = margin(x + ALONG * gradient.sign()) - margin(x)
    lost = int(((gained < 0) & (gradient.flatten(1).abs().amax(1) > 0)).sum())
    if 2 * lost <= len(x):
        return None
    sentence = f"a small step along the gradient lowers what it should raise on {lost} of {len(x)} images tried"
    return Note("gradient misleads", sentence, gradient=True)

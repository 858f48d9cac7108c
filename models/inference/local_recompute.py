"""Asking again about images that differ from known ones in a window: a network's first layers are computed there alone.

A 3×3 convolution carries a change one pixel further, so a small window changes little of what the first layers of a
network hand on, and on small images these layers cost most. A network takes part by asking `first_layers`; a search
keeps a `LocalRecompute`. Nothing is taken on trust: where a layer is not what it is taken for, where the network's
input is another one outside the window, or where the logits come out differently, everything is computed in full.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.inference.folding import agree

LEAST = 24  # pixels of an image's side below which nothing is saved
SHARE = 0.75  # of an image's side: where a change reaches further, little is left out
MOST = 2**29  # bytes remembered of one network, at most


@dataclass(frozen=True)
class Layer:
    """x ↦ ReLU(norm(conv(x)) [+ what went into the layer before]).

    Attributes:
        conv: 3×3, stride 1, padded by a pixel of zeros.
        norm: the identity, or a batch normalisation in eval mode.
        skip: whether the input of the layer before is added.
    """

    conv: nn.Conv2d
    norm: nn.Module
    skip: bool = False

    def __call__(self, x: Tensor, before: Tensor, padding: int = 1) -> Tensor:
        y = self.norm(functional.conv2d(x, self.conv.weight, self.conv.bias, padding=padding))
        return torch.relu_(y.add_(before) if self.skip else y)

    def holds(self) -> bool:
        """Whether the modules are what this layer takes them for."""
        if type(self.conv) is not nn.Conv2d or type(self.norm) not in (nn.Identity, nn.BatchNorm2d):
            return False
        conv, norm = self.conv, self.norm
        pixelwise = isinstance(norm, nn.Identity) or (norm.running_mean is not None and not norm.training)
        shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        usual = shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1 and conv.padding_mode == "zeros"
        return bool(pixelwise and usual)


class Local(Protocol):
    """A network whose first layers are known one by one."""

    def layers(self) -> Sequence[Layer]:
        """Empty where a module among them is not the one they were written for."""


@dataclass
class _Trace:
    """What goes into each layer, and out of the last: pixels of N images, (N·H·W + 1, C), and one of zeros outside."""

    count: int
    size: tuple[int, int]
    states: list[Tensor]


@dataclass(frozen=True)
class _Question:
    """Which images are asked about, (K,), their windows' corners, (K,), and, found on the way, what changes in them:
    per network and state the pixels' places, (K, s, s), and values, (K, s, s, C)."""

    rows: Tensor
    top: Tensor
    left: Tensor
    side: int
    changes: dict[Local, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


class LocalRecompute:
    """A model, and what its first layers make of some images. Without gradients.

    On a CPU alone: a GPU is hardly faster with a part of a small batch than with the whole.
    """

    def __init__(self, model: nn.Module, images: Tensor, side: int) -> None:
        """Asks the model about the images, (N, C, H, W), once; no window will be larger than `side` pixels."""
        self.model, self.side = model, side
        self.traces: dict[Local, _Trace | None] = {}  # None: of no use
        self.question: _Question | None = None
        self._alive = torch.arange(len(images))
        self._checked = False
        if images.device.type == "cpu":
            self._answer(images)

    def logits_of(self, rows: Tensor, images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        """Logits of images, (K, C, H, W), that differ from those at `rows` only in windows with these corners, (K,)."""
        if not any(self.traces.values()):
            return cast(Tensor, self.model(images))
        self.question = _Question(self._alive[rows], top, left, side)
        logits = self._answer(images)
        if not self._checked:
            own, self._checked = cast(Tensor, self.model(images)), True
            if not agree(own, logits):
                self.traces.clear()
                return own
        return logits

    def accept(self, which: Tensor) -> None:
        """Of the images asked about last those chosen, boolean (K,), stand in place of the known ones."""
        for network, trace in self.traces.items():
            changes = self.question.changes.get(network) if self.question else None
            if trace is None or changes is None:
                self.traces[network] = None  # not known where it changed
                continue
            for state, (places, values) in zip(trace.states, changes, strict=True):
                state.index_copy_(0, places[which].flatten(), values[which].flatten(0, 2))

    def keep_rows(self, kept: Tensor) -> None:
        """No other images than these, boolean (N,), will be asked about."""
        self._alive = self._alive[kept]

    def _answer(self, images: Tensor) -> Tensor:
        token = _asking.set(self)
        try:
            return cast(Tensor, self.model(images))
        finally:
            _asking.reset(token)


_asking: ContextVar[LocalRecompute | None] = ContextVar("asking", default=None)


def first_layers(network: Local, x: Tensor) -> Tensor | None:
    """The network's first layers of x, (N, C, H, W), where a `LocalRecompute` has seen most of it before; None where
    they have to be computed."""
    nearby = _asking.get()
    if nearby is None or torch.is_grad_enabled() or x.is_inference():
        return None
    layers = network.layers()
    if nearby.question is None:
        nearby.traces[network] = _remembered(nearby, network, layers, x)
        return None
    return _recall(nearby, network, layers, x)


def _remembered(nearby: LocalRecompute, network: Local, layers: Sequence[Layer], x: Tensor) -> _Trace | None:
    size = (x.shape[2], x.shape[3])
    reaches = nearby.side + 2 * len(layers)
    channels = x.shape[1] + sum(layer.conv.out_channels for layer in layers)
    weighs = channels * size[0] * size[1] * len(x) * x.element_size()
    fits = min(size) >= LEAST and reaches <= SHARE * min(size) and weighs <= MOST
    # Asked twice in one forward, its images may not be those of the search.
    if not layers or not fits or network in nearby.traces:
        return None
    states = [x]
    for layer in layers:
        states.append(layer(states[-1], states[max(len(states) - 2, 0)]))
    return _Trace(len(x), size, [functional.pad(_pixels(state).flatten(0, 2), (0, 0, 0, 1)) for state in states])


def _recall(nearby: LocalRecompute, network: Local, layers: Sequence[Layer], x: Tensor) -> Tensor | None:
    """What the layers make of x, and the changes written down; None where x is not what the question says it is."""
    trace, question = nearby.traces.get(network), nearby.question
    if trace is None or question is None or network in question.changes or len(x) != len(question.rows):
        return None
    if not layers or not len(x) or trace.size != (x.shape[2], x.shape[3]):
        return None
    (height, width), outside = trace.size, len(trace.states[0]) - 1
    places = _places(question, len(layers) + 1, trace.size, outside)
    at = _centre(places, len(layers) + 1)
    # From a place among all known images to the one among those asked about.
    shift = ((torch.arange(len(x)) - question.rows) * height * width)[:, None, None]
    if not _differs_there_alone(x, trace, question, at, at + shift):
        return None

    new = _pixels(x).flatten(0, 2)[at + shift]
    changes, before = [(at, new)], new
    for number, layer in enumerate(layers):
        around = _at(trace.states[number], _centre(places, len(layers) - 1 - number))
        around[:, 2:-2, 2:-2] = new
        at = _centre(places, len(layers) - number)
        new = _pixels(layer(around.permute(0, 3, 1, 2), before.permute(0, 3, 1, 2), padding=0))
        new.mul_((at < outside)[..., None])
        before = around
        changes.append((at, new))
    question.changes[network] = changes

    last, pixels = trace.states[-1], len(x) * height * width
    result = last.new_empty(pixels + 1, last.shape[1])
    whole = last[:outside].view(trace.count, -1)
    torch.index_select(whole, 0, question.rows, out=result[:pixels].view(len(x), -1))
    result.index_copy_(0, torch.where(at < outside, at + shift, pixels).flatten(), new.flatten(0, 2))
    return result[:pixels].view(len(x), height, width, -1).permute(0, 3, 1, 2)


def _differs_there_alone(x: Tensor, trace: _Trace, question: _Question, at: Tensor, own: Tensor) -> bool:
    """Whether x is what was known but for the windows, whose pixels are `at` in the trace and `own` in x."""
    outside = len(trace.states[0]) - 1
    if bool((at == outside).any()):
        return False
    known = trace.states[0][:outside].view(trace.count, -1, x.shape[1])[question.rows]
    differs = (_pixels(x).flatten(0, 2) != known.flatten(0, 1)).any(1)
    differs[own.flatten()] = False
    return not bool(differs.any())


def _at(state: Tensor, places: Tensor) -> Tensor:
    return state.index_select(0, places.flatten()).view(*places.shape, -1)


def _places(question: _Question, reach: int, size: tuple[int, int], outside: int) -> Tensor:
    """Where a trace's states have the pixels of the windows, grown by `reach` on all sides, (K, s, s)."""
    along = torch.arange(-reach, question.side + reach)
    y, x = question.top[:, None] + along, question.left[:, None] + along
    inside = ((y >= 0) & (y < size[0]))[:, :, None] & ((x >= 0) & (x < size[1]))[:, None]
    index = (question.rows[:, None] * size[0] + y)[:, :, None] * size[1] + x[:, None]
    return torch.where(inside, index, outside)


def _centre(places: Tensor, margin: int) -> Tensor:
    return places[:, margin:-margin, margin:-margin] if margin else places


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)

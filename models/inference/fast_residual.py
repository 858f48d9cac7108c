"""A chain of folded residual blocks with a gradient for their input alone, which hardly takes any memory of its own.

Where parameters are fixed, backward is a convolution, a mask and a sum per layer. Autograd keeps the sums in memory of
their own; on a CPU fetching that takes as long as a fifth of the convolutions. Here whatever backward has made itself
it writes over. The bits are autograd's.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn


class Block(Protocol):
    """x ↦ ReLU(shortcut(x) + conv2(ReLU(conv1(x)))); the shortcut has no parameters."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """ReLU(shortcut(x) + y), written over y."""

    def back_to_input(self, gradient: Tensor, into: Tensor) -> Tensor:
        """`into` (shaped like x) and, added to it, what the shortcut makes of the output's gradient."""


def chain(blocks: Sequence[Block], x: Tensor) -> Tensor:
    """All blocks in turn, differentiable in x alone, and once: for create_graph RuntimeError is raised."""
    return cast(Tensor, _Chain.apply(x, blocks))


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Sequence[Block]) -> Tensor:
        states = [x]
        for block in blocks:
            inner = torch.relu_(block.conv1(states[-1]))
            states += [inner, block.joined(states[-1], block.conv2(inner))]
        ctx.blocks = blocks
        # Saved, weights that were changed before backward are an error, as they are autograd's.
        ctx.save_for_backward(*states, *(conv.weight for block in blocks for conv in (block.conv1, block.conv2)))
        return states[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("a folded network has no second derivative; take it of the model itself")
        count, mine = 2 * len(ctx.blocks), False
        states, weights = ctx.saved_tensors[: count + 1], ctx.saved_tensors[count + 1 :]
        for number in reversed(range(len(ctx.blocks))):
            block, (x, inner, out) = ctx.blocks[number], states[2 * number : 2 * number + 3]
            first, second = weights[2 * number : 2 * number + 2]
            gradient = _where_positive(gradient, out, over=mine)
            into = _where_positive(_to_input(gradient, inner, second, block.conv2), inner, over=True)
            gradient, mine = block.back_to_input(gradient, _to_input(into, x, first, block.conv1)), True
        return gradient, None


def _where_positive(gradient: Tensor, out: Tensor, *, over: bool) -> Tensor:
    """The gradient of ReLU, whose output is `out`; written over what came in where `over` says so."""
    if over:
        return cast(Tensor, torch.ops.aten.threshold_backward.grad_input(gradient, out, 0, grad_input=gradient))
    return cast(Tensor, torch.ops.aten.threshold_backward(gradient, out, 0))


def _to_input(gradient: Tensor, x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
    """The gradient of a convolution in its input x, of which only shape and layout count."""
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
        [True, False, False],
    )  # fmt: skip
    return cast(Tensor, found[0])

"""What a gradient attack raises: functions of logits (N, classes) and labels (N,), one value per example."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LossName = Literal["ce", "dlr", "margin", "dlr-targeted", "margin-targeted"]
Loss = Callable[[Tensor, Tensor], Tensor]
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-12


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """−log p_y, (N,). In float32 its gradient vanishes where the other classes' probabilities underflow."""
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{i≠y} z_i − z_y, (N,): above 0 the example is misclassified (Carlini & Wagner 2017)."""
    own = logits.gather(1, y[:, None])
    others = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return others.amax(1) - own[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, the margin over z_π1 − z_π3 (Croce & Hein 2020, Eq. 6), (N,); the margin alone
    where there are fewer than three classes. Invariant to shift and scale of the logits."""
    ranked = logits.sort(1, descending=True).values
    spread = ranked[:, 0] - ranked[:, 2] if logits.shape[1] > 2 else torch.ones_like(ranked[:, 0])
    return margin(logits, y) / (spread + _TINY)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2) (Croce & Hein 2020, Eq. 7), (N,); with three classes z_π3 alone,
    with two no denominator."""
    ranked = logits.sort(1, descending=True).values
    gap = margin_targeted(logits, y, target)
    spread = ranked[:, 0] - ranked[:, 2:4].mean(1) if logits.shape[1] > 2 else torch.ones_like(gap)
    return gap / (spread + _TINY)


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t − z_y, (N,)."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def rivals(logits: Tensor, y: Tensor) -> Tensor:
    """The classes other than y, most likely first, (N, classes − 1)."""
    others = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return others.argsort(1, descending=True)[:, :-1]


UNTARGETED: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}
TARGETED: dict[str, TargetedLoss] = {"dlr-targeted": dlr_targeted, "margin-targeted": margin_targeted}

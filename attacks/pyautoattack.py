"""AutoAttack's four attacks by pyautoattack, to the bit: what our own engine is measured against.

Its own runner is not used. Its state files cannot be read back (a set comes back as text, and is then
compared with a set), hold no images, and are not written atomically; and its check for dynamic
defences sets the process' trace function and counts over all models it ever saw. Every attack of it
seeds itself, so stages run one by one give what its runner gives.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.core.draws import Draws

# pyautoattack reports zero gradients as log lines; the gradient diagnostic counts them.
_SILENT = logging.Logger("pyautoattack")
_SILENT.addHandler(logging.NullHandler())

Perturb = Callable[[Tensor, Tensor], Tensor]


def reference(
    name: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    iterations: int,
    targets: int,
    queries: int,
) -> Tensor:
    """One attack of pyautoattack on correctly classified images, (N, C, H, W); the clean image where it fails.

    Args:
        name: apgd-ce, apgd-t, fab-t or square.
        targets: classes that the targeted ones aim at.
    """
    images = x.clone()
    # It seeds torch's global generator: every attack, and every radius, starts from the batch's seed.
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
        # pyautoattack takes one radius a call.
        for radius in eps.unique().tolist():
            rows = eps == radius
            common = {"eps": radius, "norm": "Linf", "seed": draws.batch_seed(), "device": x.device, "verbose": False}
            images[rows] = _perturb(name, model, iterations, targets, queries, common)(x[rows], y[rows])
    return images


def _perturb(
    name: str, model: nn.Module, iterations: int, targets: int, queries: int, common: dict[str, Any]
) -> Perturb:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    made: Any
    if name == "apgd-ce":
        made = APGDAttack(model, n_iter=iterations, loss="ce", logger=_SILENT, **common)
    elif name == "apgd-t":
        made = APGDAttack_targeted(model, n_iter=iterations, n_target_classes=targets, logger=_SILENT, **common)
    elif name == "fab-t":
        made = FABAttack_PT(model, n_iter=iterations, n_target_classes=targets, targeted=True, **common)
    else:
        made = SquareAttack(model, p_init=0.8, n_queries=queries, resc_schedule=False, **common)
    perturb: Perturb = made.perturb
    return perturb

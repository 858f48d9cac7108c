"""AutoAttack (Croce & Hein 2020), by pyautoattack: its four attacks, one after the other.

Its own runner is not used. Its state files cannot be read back (a set comes back as text, and is then
compared with a set), hold no images, and are not written atomically; and its check for dynamic
defences sets the process' trace function and counts over all models it ever saw. Every attack of it
seeds itself, so stages run one by one give what its runner gives, to the bit.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from attacks.cascade import Cascade, check_budgets, check_stages
from attacks.contract import ContractError, Search
from attacks.draws import Draws
from bench.registry import attack

# pyautoattack reports zero gradients as log lines; the gradient diagnostic counts them.
_SILENT = logging.Logger("pyautoattack")
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Options:
    """What AutoAttack is made of; the defaults are its version "standard", as RobustBench runs it.

    Attributes:
        attacks: which, in which order, joined by `+`: apgd-ce, apgd-t, fab-t, square.
        iterations: steps of APGD and FAB.
        targets: classes that APGD-T and FAB-T aim at, at most; all others where there are fewer.
        queries: forwards of Square per image.
    """

    attacks: str = "apgd-ce+apgd-t+fab-t+square"
    iterations: int = 100
    targets: int = 9
    queries: int = 5000

    def __post_init__(self) -> None:
        check_stages("attacks", self.attacks.split("+"), _MAKERS, "join by")
        check_budgets(iterations=self.iterations, targets=self.targets, queries=self.queries)


def stages(**options: Any) -> dict[str, Search]:
    """The attacks chosen, in order; raises ValueError for bad options."""
    chosen = Options(**options)
    return {name: partial(_stage, name, chosen) for name in chosen.attacks.split("+")}


@attack(
    "autoattack",
    version=f"1-pyautoattack-{version('pyautoattack')}",
    options=Options,
    stages=stages,
    label="AutoAttack",
)
def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, **options: Any) -> Tensor:
    """AutoAttack (Croce & Hein 2020): APGD-CE, APGD-T, FAB-T and Square, each on what is still standing."""
    return Cascade(stages(**options))(model, x, y, eps, draws)


def _stage(name: str, options: Options, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
    """One attack of pyautoattack on correctly classified images; where it fails, it returns the clean image.

    Raises:
        ContractError: the model has too few classes for it.
    """
    images = x.clone()
    # It seeds torch's global generator: every attack, and every radius, starts from the batch's seed.
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
        classes = model(x[:1]).shape[1]
        if classes < 4 and "apgd-t" in options.attacks.split("+"):
            # Said by every stage: whether one is reached depends on what those before it broke.
            raise ContractError(
                f"AutoAttack's apgd-t takes the four largest logits, and there are {classes} classes: "
                "leave it out with autoattack[attacks=apgd-ce+fab-t+square]"
            )
        # pyautoattack takes one radius a call.
        for radius in eps.unique().tolist():
            rows = eps == radius
            common = {"eps": radius, "norm": "Linf", "seed": draws.batch_seed(), "device": x.device, "verbose": False}
            perturb = _MAKERS[name](model, classes, options, common)
            images[rows] = perturb(x[rows], y[rows])
    return images


def _apgd_ce(model: nn.Module, classes: int, options: Options, common: dict[str, Any]) -> Callable[..., Tensor]:
    from pyautoattack.autopgd_base import APGDAttack

    return APGDAttack(model, n_iter=options.iterations, loss="ce", logger=_SILENT, **common).perturb


def _apgd_t(model: nn.Module, classes: int, options: Options, common: dict[str, Any]) -> Callable[..., Tensor]:
    from pyautoattack.autopgd_base import APGDAttack_targeted

    targets = min(options.targets, classes - 1)
    return APGDAttack_targeted(
        model, n_iter=options.iterations, n_target_classes=targets, logger=_SILENT, **common
    ).perturb


def _fab_t(model: nn.Module, classes: int, options: Options, common: dict[str, Any]) -> Callable[..., Tensor]:
    from pyautoattack.fab_pt import FABAttack_PT

    targets = min(options.targets, classes - 1)
    return FABAttack_PT(model, n_iter=options.iterations, n_target_classes=targets, targeted=True, **common).perturb


def _square(model: nn.Module, classes: int, options: Options, common: dict[str, Any]) -> Callable[..., Tensor]:
    from pyautoattack.square import SquareAttack

    return SquareAttack(model, p_init=0.8, n_queries=options.queries, resc_schedule=False, **common).perturb


_MAKERS: dict[str, Callable[[nn.Module, int, Options, dict[str, Any]], Callable[..., Tensor]]] = {
    "apgd-ce": _apgd_ce,
    "apgd-t": _apgd_t,
    "fab-t": _fab_t,
    "square": _square,
}

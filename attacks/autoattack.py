"""AutoAttack (Croce & Hein 2020): its four attacks, one after the other, each on what is still standing.

By an engine of our own, in which an example leaves an attack as soon as it is broken, or by pyautoattack. They are
equal in outcome, not to the bit: their random draws differ, ours being each example's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks.apgd import apgd, random_start
from attacks.cascade import Cascade, check_budgets, check_stages
from attacks.contract import ContractError, Search
from attacks.draws import Draws
from attacks.fab import fab
from attacks.losses import cross_entropy, dlr_targeted, rivals
from attacks.reference import reference
from attacks.square import square
from bench.registry import attack

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")

_SQUARE = -1  # which of an example's draws are Square's; random starts count from 0


@dataclass(frozen=True)
class Options:
    """What AutoAttack is made of; the defaults are its version "standard", as RobustBench runs it.

    Attributes:
        attacks: which, in which order, joined by `+`: apgd-ce, apgd-t, fab-t, square.
        iterations: steps of APGD and FAB.
        targets: classes that APGD-T and FAB-T aim at, at most; all others where there are fewer.
        queries: proposals of Square per image.
        engine: compact, our own; reference, pyautoattack.
    """

    attacks: str = "+".join(ATTACKS)
    iterations: int = 100
    targets: int = 9
    queries: int = 5000
    engine: Literal["compact", "reference"] = "compact"

    def __post_init__(self) -> None:
        check_stages("attacks", self.attacks.split("+"), ATTACKS, "join by")
        check_budgets(iterations=self.iterations, targets=self.targets, queries=self.queries)


def stages(**options: Any) -> dict[str, Search]:
    """The attacks chosen, in order; raises ValueError for bad options."""
    chosen = Options(**options)
    return {name: partial(_stage, name, chosen) for name in chosen.attacks.split("+")}


@attack(
    "autoattack",
    version=f"2-pyautoattack-{version('pyautoattack')}",
    options=Options,
    stages=stages,
    how=("engine",),
    label="AutoAttack",
)
def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, **options: Any) -> Tensor:
    """AutoAttack (Croce & Hein 2020): APGD-CE, APGD-T, FAB-T and Square, each on what is still standing."""
    return Cascade(stages(**options))(model, x, y, eps, draws)


def _stage(name: str, options: Options, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
    """One attack on correctly classified images.

    Raises:
        ContractError: the model has too few classes for it.
    """
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes < 4 and "apgd-t" in options.attacks.split("+"):
        # Said by every stage: whether one is reached depends on what those before it broke.
        raise ContractError(
            f"AutoAttack's apgd-t takes the four largest logits, and there are {classes} classes: "
            "leave it out with autoattack[attacks=apgd-ce+fab-t+square]"
        )
    iterations, targets, queries = options.iterations, min(options.targets, classes - 1), options.queries
    if options.engine == "reference":
        budgets = {"iterations": iterations, "targets": targets, "queries": queries}
        return reference(name, model, x, y, eps, draws, **budgets)
    if name == "square":
        return square(model, x, y, eps, draws, queries=queries, restart=_SQUARE)
    if name == "apgd-ce":
        return apgd(model, x, y, eps, random_start(x, eps, draws, 0), cross_entropy, steps=iterations)

    def towards(rank: int, rows: Tensor, aim: Tensor) -> Tensor:
        part = x[rows], y[rows], eps[rows]
        if name == "fab-t":
            return fab(model, *part, aim, steps=iterations)
        start = random_start(x[rows], eps[rows], draws.of(rows.tolist()), 1 + rank)
        return apgd(model, *part, start, dlr_targeted, steps=iterations, targets=aim)

    return _in_turn(model, x, y, targets, towards)


def _in_turn(
    model: nn.Module, x: Tensor, y: Tensor, targets: int, towards: Callable[[int, Tensor, Tensor], Tensor]
) -> Tensor:
    """A targeted attack on the most likely other classes, (rank, rows, their classes) -> images, one after the other,
    each on what still stands; the clean image where all fail."""
    images, rows = x.clone(), torch.arange(len(x), device=x.device)
    with torch.no_grad():
        order = rivals(model(x), y)
    for rank in range(targets):
        if not len(rows):
            break
        found = towards(rank, rows, order[rows, rank])
        with torch.no_grad():
            wrong = model(found).argmax(1) != y[rows]
        images[rows[wrong]] = found[wrong]
        rows = rows[~wrong]
    return images

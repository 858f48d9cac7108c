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

from bench.attacks.apgd import apgd, random_start
from bench.attacks.core.cascade import Cascade, check_budgets, check_stages, idle_budgets
from bench.attacks.core.contract import ContractError, Search
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import cross_entropy, dlr_targeted, rivals
from bench.attacks.fab import fab
from bench.attacks.pyautoattack import reference
from bench.attacks.square import square
from bench.registry import attack

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
TOGETHER = 250  # images in a batch, at most, where several classes are aimed at together


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


def _idle(**options: Any) -> dict[str, str]:
    spent_by = {"iterations": ATTACKS[:3], "targets": ("apgd-t", "fab-t"), "queries": ("square",)}
    return idle_budgets(Options(**options).attacks.split("+"), spent_by, "attacks")


def folds(**options: Any) -> bool:
    """Whether the folded model is searched: by our engine alone."""
    return Options(**options).engine == "compact"


@attack(
    "autoattack",
    version=f"3-pyautoattack-{version('pyautoattack')}",
    options=Options,
    stages=stages,
    folds=folds,
    engines=("engine",),
    idle=_idle,
    label="AutoAttack",
)
def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, **options: Any) -> Tensor:
    """AutoAttack (Croce & Hein 2020): APGD-CE, APGD-T, FAB-T and Square, each on what is still standing."""
    return Cascade(stages(**options), folded=folds(**options))(model, x, y, eps, draws)


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
    if options.engine == "compact":
        return COMPACT[name](model, x, y, eps, draws, options)
    budgets = {"iterations": options.iterations, "targets": min(options.targets, classes - 1)}
    return reference(name, model, x, y, eps, draws, **budgets, queries=options.queries)


def _apgd_ce(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, options: Options) -> Tensor:
    return apgd(model, x, y, eps, random_start(x, eps, draws, 0), cross_entropy, steps=options.iterations)


def _apgd_t(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, options: Options) -> Tensor:
    def towards(aims: Tensor, ranks: range, rows: Tensor) -> Tensor:
        own = draws.of(rows.tolist())
        start = torch.cat([random_start(x[rows], eps[rows], own, 1 + rank) for rank in ranks])
        rows = rows.repeat(len(ranks))
        steps = options.iterations
        return apgd(model, x[rows], y[rows], eps[rows], start, dlr_targeted, steps=steps, targets=aims)

    return _targeted(model, x, y, options.targets, towards)


def _fab_t(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, options: Options) -> Tensor:
    def towards(aims: Tensor, ranks: range, rows: Tensor) -> Tensor:
        rows = rows.repeat(len(ranks))
        return fab(model, x[rows], y[rows], eps[rows], aims, steps=options.iterations)

    return _targeted(model, x, y, options.targets, towards)


def _square(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, options: Options) -> Tensor:
    # Random starts count from 0.
    return square(model, x, y, eps, draws, queries=options.queries, restart=-1)


COMPACT: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor, Draws, Options], Tensor]] = {
    "apgd-ce": _apgd_ce,
    "apgd-t": _apgd_t,
    "fab-t": _fab_t,
    "square": _square,
}


def _targeted(
    model: nn.Module, x: Tensor, y: Tensor, targets: int, towards: Callable[[Tensor, range, Tensor], Tensor]
) -> Tensor:
    """A targeted attack on the most likely other classes in turn, each on what still stands; the clean image where
    all fail.

    The first class breaks most of what is broken at all. After it, several are aimed at together where few examples
    are left, since a small batch takes hardly less time than a larger one.

    Args:
        towards: from aims, ranks and rows, for each rank in turn all rows, their classes concatenated, to images.
    """
    images, rows = x.clone(), torch.arange(len(x), device=x.device)
    with torch.no_grad():
        order = rivals(model(x), y)[:, :targets]
    done = 0
    while len(rows) and done < order.shape[1]:
        ranks = range(done, min(order.shape[1], done + (max(1, TOGETHER // len(rows)) if done else 1)))
        found = towards(order[rows][:, ranks].T.flatten(), ranks, rows)
        with torch.no_grad():
            wrong = (model(found).argmax(1) != y[rows].repeat(len(ranks))).view(len(ranks), -1)
        first = found.view(len(ranks), len(rows), *x.shape[1:])[
            wrong.int().argmax(0), torch.arange(len(rows), device=x.device)
        ]
        fallen = wrong.any(0)
        images[rows[fallen]] = first[fallen]
        rows, done = rows[~fallen], ranks.stop
    return images

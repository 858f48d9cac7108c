"""The strongest there is here against implicit models: a cascade of searches, per example broken by any.

It does what breaks such defences where their own gradient does not: gradients through the unrolled solver and
its intermediate states (Yang et al. 2022), the Lyapunov projection passed by or its ∇V held constant, images
found on the undefended twin, and queries without any gradient. AutoAttack's outcomes are not mixed in.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.attacks.apgd import random_start, search
from bench.attacks.core.cascade import Cascade, better_of, check_budgets, check_stages, idle_budgets
from bench.attacks.core.contract import Search
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import LossName
from bench.attacks.core.surrogate_views import find_views
from bench.attacks.square import square
from bench.registry import attack

# In the order they run: what breaks most, cheapest, first. Restarts number the examples' random draws.
OWN: dict[str, tuple[LossName, int]] = {
    "apgd-ce": ("ce", 0),
    "apgd-margin-t": ("margin-targeted", 1),
    "apgd-margin": ("margin", 2),
}
VIEWS = ("unrolled", "intermediate", "simultaneous", "no-projection", "detached", "twin")
MEMBERS = (*OWN, *VIEWS, "square")


@dataclass(frozen=True)
class Options:
    """What the cascade is made of.

    Attributes:
        members: which, joined by `+`, in this order; `all` is every one of them.
        iterations: gradient steps per search (per target, of a targeted one).
        targets: classes aimed at, at most.
        queries: forwards of Square per image.
        twin: the undefended twin, a model's name; auto: the extractor alone, trained as the model was.
    """

    members: str = "all"
    iterations: int = 100
    targets: int = 9
    queries: int = 5000
    twin: str = "auto"

    def __post_init__(self) -> None:
        check_stages("members", self.chosen(), MEMBERS, "all, or join by")
        check_budgets(iterations=self.iterations, targets=self.targets, queries=self.queries)

    def chosen(self) -> list[str]:
        return list(MEMBERS) if self.members == "all" else self.members.split("+")


def stages(**options: Any) -> dict[str, Search]:
    """The members chosen, in order; raises ValueError for bad options."""
    chosen = Options(**options)
    return {name: _member(name, chosen) for name in chosen.chosen()}


def _idle(**options: Any) -> dict[str, str]:
    spent_by = {
        "iterations": (*OWN, *VIEWS),
        "targets": ("apgd-margin-t",),
        "queries": ("square",),
        "twin": ("twin",),
    }
    return idle_budgets(Options(**options).chosen(), spent_by, "members")


@attack(
    "adaptive",
    version=2,
    options=Options,
    stages=stages,
    warm=True,
    nested=True,
    twin="twin",
    views=VIEWS,
    idle=_idle,
    label="adaptive",
)
def adaptive(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, **options: Any) -> Tensor:
    """Adaptive worst case: APGD on three losses, along every view of an implicit model, from its twin, and Square."""
    return Cascade(stages(**options), warm=True)(model, x, y, eps, draws)


def _member(name: str, options: Options) -> Search:
    if name == "square":
        return partial(_square, options)
    if name in OWN:
        loss, restart = OWN[name]
        return partial(_own, options, loss=loss, restart=restart)
    return partial(_along, options, name=name)


def _own(
    options: Options,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    start: Tensor,
    loss: LossName,
    restart: int,
) -> Tensor:
    """Along the model's own gradient; the margin from the best image so far, the other losses from a fresh start."""
    begin = start if loss == "margin" else random_start(x, eps, draws, restart)
    steps, targets = options.iterations, options.targets
    return search(model, x, y, eps, begin, loss=loss, steps=steps, targets=targets, guide=None)


def _along(
    options: Options,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    draws: Draws,
    *,
    start: Tensor,
    name: str,
) -> Tensor:
    """Along a view's gradient, first of the cross-entropy from a fresh start, then of the margin from the best
    image so far. A model without that view is left as it is."""
    guide = find_views(model).get(name)
    if guide is None:
        return start
    fresh = random_start(x, eps, draws, len(OWN) + VIEWS.index(name))
    half = max(1, options.iterations // 2)
    found = search(model, x, y, eps, fresh, loss="ce", steps=half, targets=1, guide=guide)
    # From the better of the two; whoever is broken already is returned by the search at once.
    begin = better_of(model, y, found, start)
    return search(model, x, y, eps, begin, loss="margin", steps=half, targets=1, guide=guide)


def _square(
    options: Options, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, *, start: Tensor
) -> Tensor:
    """Without gradients, from stripes of its own."""
    return square(model, x, y, eps, draws, queries=options.queries, restart=len(OWN) + len(VIEWS))

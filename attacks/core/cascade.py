"""Attacks made of stages, each run on the examples that the stages before it left standing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import Search
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import margin
from bench.registry import AttackEntry

STANDING = -1  # in `broken_by`: no stage broke the example


@dataclass
class CascadeState:
    """How far a cascade came with one batch: enough to go on from there, to the same bits.

    Attributes:
        done: how many stages are through.
        images: what was found so far, clean images where nothing was, (N, C, H, W).
        broken_by: position of the first stage that broke the example, or STANDING, int8, (N,).
        met: what the gradients of these stages were like (`gradient_watch`), for whoever watches them, int8, (N,).
    """

    done: int = 0
    images: Tensor | None = None
    broken_by: Tensor | None = None
    met: Tensor | None = None


@dataclass(frozen=True)
class Cascade:
    """A search whose stages are searches of their own, in order. A misclassified example is left alone.

    Attributes:
        stages: the searches by name.
        warm: keep, of an example that still stands, the image of the largest margin found so far instead of the
            clean one, and hand it to each stage as `start`.
        folded: let the stages search on the model's folded form, where it has one (`bench.models.inference.folding`).
            What they found is judged by the model itself.
    """

    stages: Mapping[str, Search]
    warm: bool = False
    folded: bool = False

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        """The whole cascade at once."""
        return self.resume(model, x, y, eps, draws, reached=CascadeState(), after=lambda: None)

    def resume(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: Tensor,
        draws: Draws,
        *,
        reached: CascadeState,
        after: Callable[[], None],
    ) -> Tensor:
        """Go on from the state that was reached.

        Args:
            reached: brought up to date stage by stage. One that begins with images (and who broke them) of a
                smaller radius carries these on.
            after: called when a stage is through, for whoever wants to keep what was reached.
        """
        images = x.clone() if reached.images is None else reached.images.to(x)
        nothing = torch.full_like(y, STANDING, dtype=torch.int8)
        broken_by = nothing if reached.broken_by is None else reached.broken_by.to(nothing)
        fold = getattr(model, "folded", None) if self.folded and len(x) else None
        searched = fold(x) if fold else model
        with torch.no_grad():
            right = model(x).argmax(1) == y
        for number, search in list(enumerate(self.stages.values()))[reached.done :]:
            rows = (right & (broken_by == STANDING)).nonzero().flatten()
            if len(rows):
                start = {"start": images[rows]} if self.warm else {}
                found = search(searched, x[rows], y[rows], eps[rows], draws.of(rows.tolist()), **start).detach()
                with torch.no_grad():
                    logits = model(found)
                    taken = wrong = logits.argmax(1) != y[rows]
                    if self.warm:
                        taken = wrong | (margin(logits, y[rows]) > margin(model(images[rows]), y[rows]))
                images[rows[taken]] = found[taken]
                broken_by[rows[wrong]] = number
            reached.done, reached.images, reached.broken_by = number + 1, images, broken_by
            after()
        return images


def better_of(model: nn.Module, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Per example the image of the larger margin."""
    with torch.no_grad():
        larger = margin(model(first), y) > margin(model(second), y)
    return torch.where(larger.view(-1, 1, 1, 1), first, second)


def check_stages(option: str, chosen: Sequence[str], known: Collection[str], ways: str) -> None:
    """Raise ValueError unless every stage chosen is known and chosen once; `ways` says how they are joined."""
    if set(chosen) - set(known) or len(set(chosen)) != len(chosen):
        raise ValueError(f"{option}={'+'.join(chosen)!r}: {ways} + each at most once, of {', '.join(known)}")


def idle_budgets(chosen: Collection[str], budgets: Mapping[str, Collection[str]], option: str) -> dict[str, str]:
    """Budgets of stages none of which is chosen, and what they belong to.

    Args:
        budgets: by option, the stages that spend it.
        option: which one names the stages.
    """
    return {
        name: f"{option} with one of {', '.join(stages)}"
        for name, stages in budgets.items()
        if not set(stages) & set(chosen)
    }


def check_budgets(**budgets: int) -> None:
    """Raise ValueError for a budget below 1."""
    for name, value in budgets.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def bind(entry: AttackEntry, options: Mapping[str, Any]) -> Search:
    """A registered attack with its options bound; a Cascade where its trait `stages` builds them."""
    stages, folds = entry.traits.stages, entry.traits.folds
    if not stages:
        return partial(entry.target, **options)
    return Cascade(stages(**options), entry.traits.warm, bool(folds and folds(**options)))

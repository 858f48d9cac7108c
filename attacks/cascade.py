"""Attacks made of stages, each run on the examples that the stages before it left standing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attacks.contract import Search
from attacks.draws import Draws
from bench.registry import Entry

STANDING = -1  # in `broken_by`: no stage broke the example


@dataclass
class Trail:
    """How far a cascade came with one batch: enough to go on from there, to the same bits.

    Attributes:
        done: how many stages are through.
        images: what was found so far, clean images where nothing was, (N, C, H, W).
        broken_by: position of the first stage that broke the example, or STANDING, int8, (N,).
    """

    done: int = 0
    images: Tensor | None = None
    broken_by: Tensor | None = None


@dataclass(frozen=True)
class Cascade:
    """A search whose stages are searches of their own, in order. A misclassified example is left alone."""

    stages: Mapping[str, Search]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        """The whole cascade at once."""
        return self.follow(model, x, y, eps, draws, trail=Trail(), after=lambda: None)

    def follow(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: Tensor,
        draws: Draws,
        *,
        trail: Trail,
        after: Callable[[], None],
    ) -> Tensor:
        """Go on where the trail ends.

        Args:
            trail: brought up to date stage by stage.
            after: called when a stage is through, for whoever wants to keep the trail.
        """
        images = x.clone() if trail.images is None else trail.images.to(x)
        nothing = torch.full_like(y, STANDING, dtype=torch.int8)
        broken_by = nothing if trail.broken_by is None else trail.broken_by.to(nothing)
        with torch.no_grad():
            right = model(x).argmax(1) == y
        for number, search in list(enumerate(self.stages.values()))[trail.done :]:
            rows = (right & (broken_by == STANDING)).nonzero().flatten()
            if len(rows):
                found = search(model, x[rows], y[rows], eps[rows], draws.of(rows.tolist())).detach()
                with torch.no_grad():
                    wrong = model(found).argmax(1) != y[rows]
                images[rows[wrong]] = found[wrong]
                broken_by[rows[wrong]] = number
            trail.done, trail.images, trail.broken_by = number + 1, images, broken_by
            after()
        return images


def bind(entry: Entry, options: Mapping[str, Any]) -> Search:
    """A registered attack with its options bound; a Cascade where its trait `stages` builds them."""
    stages = entry.traits.get("stages")
    return Cascade(stages(**options)) if stages else partial(entry.target, **options)

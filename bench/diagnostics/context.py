"""What every diagnostic is given: a trained model, the images, and the attacks whose use is in question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.cascade import bind
from bench.attacks.core.contract import Search, run_attack
from bench.attacks.core.draws import Draws
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.input_space import Space, in_space
from bench.execution.matrix_rows import AttackPlan

Rebuild = Callable[[Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Attacked:
    """The protocol's attacks at one radius, one after the other on what still stands.

    Attributes:
        inputs: what they found, else the last one's failed attempt, in the protocol's space, (N, C, H, W).
        broken: right when clean and wrong when attacked, bool (N,).
    """

    inputs: Tensor
    broken: Tensor


@dataclass(frozen=True)
class Context:
    """A pair (model, protocol) on the first n test images of a data set. Diagnostics only read it.

    Attributes:
        model: in eval mode, without parameter gradients, on its device.
        twin: the undefended twin, likewise; None where there is none.
        options: the model's resolved options.
        rebuild: a fresh model with the same weights and some evaluation options replaced; raises
            BenchError or ValueError where the model does not take them.
        x, y: images in [0, 1], (N, C, H, W), and labels.
        draws: of these images.
        radii: the grid, ascending, without 0.
        plan: the protocol's attacks at a radius.
        space: what the protocol attacks.
        canary: radius at which an undefended network must be gone; None: none is known.
        batch: images per forward.
        no_twin: why there is no twin, where the model could have one.
        held_out: images of the training set that no training sees, in [0, 1], and labels; None: there are none.
    """

    model: nn.Module
    twin: nn.Module | None
    options: Mapping[str, Any]
    rebuild: Rebuild
    x: Tensor
    y: Tensor
    draws: Draws
    radii: tuple[Fraction, ...]
    plan: Callable[[Fraction], list[AttackPlan]]
    space: Space = "pixel"
    canary: Fraction | None = None
    batch: int = 250
    no_twin: str = ""
    held_out: tuple[Tensor, Tensor] | None = None
    _known: dict[Fraction, Attacked] = field(default_factory=dict, repr=False, compare=False)
    _masks: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def twin_missing(self) -> str:
        """A sentence on why there is no twin."""
        why = self.no_twin
        return f"{why[0].upper()}{why[1:]}." if why else "The model has no undefended twin."

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def largest(self) -> Fraction:
        return self.radii[-1]

    @cached_property
    def clean(self) -> Tensor:
        """The model's predictions on the images, (N,)."""
        return self.predict(self.to_space())

    @cached_property
    def right(self) -> Tensor:
        """Classified correctly when not attacked, bool (N,)."""
        return self.clean == self.y

    def to_space(self, model: nn.Module | None = None) -> Tensor:
        """The images in the protocol's space."""
        return in_space(model or self.model, self.space).to_space(self.x)

    @cached_property
    def classes(self) -> int:
        return self.logits(self.to_space()[:1]).shape[1]

    def predict(self, inputs: Tensor, model: nn.Module | None = None, batch: int = 0) -> Tensor:
        """Predictions for inputs of the space, (N,). The protocol's space is the pixels' for all but a control."""
        return self.logits(inputs, model, batch).argmax(1)

    @torch.no_grad()
    def logits(self, inputs: Tensor, model: nn.Module | None = None, batch: int = 0) -> Tensor:
        judge = in_space(model or self.model, self.space).model
        with parametrize.cached():
            return torch.cat([judge(part.clone()) for part in inputs.split(batch or self.batch)])

    def logits_of_pixels(self, x: Tensor) -> Tensor:
        """The model's logits for images in [0, 1], whatever the protocol's space."""
        with torch.no_grad(), parametrize.cached():
            return cast(Tensor, self.model(x.clone()))

    def attack(
        self, search: Search, eps: Fraction | float, model: nn.Module | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """What a search finds for some of the images (all, without `rows`), under the contract, in the space."""
        victim = in_space(model or self.model, self.space)
        # As in a cell: an attack may ask for the model's views, of which the undefended twin is one.
        twin = None if self.twin is None else in_space(self.twin, self.space).model
        attacked = Counted(victim.model, Budget(), self.classes, twin).eval()
        chosen = torch.arange(self.n, device=self.x.device) if rows is None else rows
        found = [self.x[:0]]
        with parametrize.cached():
            for part in chosen.split(self.batch):
                inputs = victim.to_space(self.x[part])
                radius = inputs.new_full((len(part),), float(eps))
                draws = self.draws.of(part.tolist())
                pixel = self.space == "pixel"
                found.append(run_attack(search, attacked, inputs, self.y[part], radius, draws, pixel_space=pixel))
        return torch.cat(found)

    def broken(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Right when clean and wrong on these inputs, bool, one per input."""
        right, y = (self.right, self.y) if rows is None else (self.right[rows], self.y[rows])
        return right & (self.predict(inputs) != y)

    def attacked(self, eps: Fraction) -> Attacked:
        """The whole protocol at one radius; computed once. A nested attack keeps what a smaller radius broke."""
        if eps not in self._known:
            below = [radius for radius in self.radii if radius < eps]
            nested = all(plan.entry.traits.nested for plan in self.plan(eps))
            self._known[eps] = self._beyond(below[-1], eps) if below and nested else self.run_protocol(self.model, eps)
        return self._known[eps]

    def _beyond(self, smaller: Fraction, eps: Fraction) -> Attacked:
        before = self.attacked(smaller)
        rows = (~before.broken).nonzero().flatten()
        found = self.run_protocol(self.model, eps, rows)
        inputs, broken = before.inputs.clone(), before.broken.clone()
        inputs[rows], broken[rows] = found.inputs, found.broken
        return Attacked(inputs, broken)

    def run_protocol(self, model: nn.Module, eps: Fraction, rows: Tensor | None = None) -> Attacked:
        """The protocol's attacks on a model, later ones on the images that earlier ones left standing."""
        chosen = torch.arange(self.n, device=self.x.device) if rows is None else rows
        y = self.y[chosen]
        inputs = self.to_space(model)[chosen].clone()
        right = self.predict(inputs, model) == y
        broken = torch.zeros_like(right)
        for plan in self.plan(eps):
            standing = (~broken).nonzero().flatten()
            if not len(standing):
                break
            found = self.attack(bind(plan.entry, plan.options), eps, model, chosen[standing])
            inputs[standing] = found
            broken[standing] = right[standing] & (self.predict(found, model) != y[standing])
        return Attacked(inputs, broken)

    def standing(self, eps: Fraction) -> Tensor:
        """Rows that are right when clean and that the protocol does not break."""
        return (self.right & ~self.attacked(eps).broken).nonzero().flatten()

    def once(self, name: str, search: Callable[[], Tensor]) -> Tensor:
        """What a further search broke, bool (N,), computed once for all diagnostics that ask for it by this name."""
        if name not in self._masks:
            self._masks[name] = search()
        return self._masks[name]

    def exact(self, **options: Any) -> nn.Module:
        """The model in float64, its solver (if any) converged to 1e-10, other evaluation options replaced."""
        return self.rebuild({**self.converged(), **options}).double().requires_grad_(False)

    def converged(self) -> dict[str, Any]:
        """Options under which a solver goes on until it is done, for a model that has one."""
        return {"tol": 1e-10, "max_iter": 300} if {"tol", "max_iter"} <= self.options.keys() else {}

"""Other gradients of an equilibrium model, for attacks that do not trust its own.

A view has the model's weights and maps images to logits, but is differentiated elsewhere than at the fixed
point: a defence may hide there what the states on the way to it still show (Yang et al., "A Closer Look at
the Adversarial Robustness of Deep Equilibrium Models", NeurIPS 2022).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.equilibrium.gradient import EquilibriumCell, with_value
from bench.models.equilibrium.precision import full_precision
from bench.models.equilibrium.work_counter import count

STEPS = 12  # damped applications of f from zero
DAMPING = 0.5  # λ in z ← (1 − λ) z + λ f(z, h), Yang et al.'s


@dataclass(frozen=True)
class Parts:
    """An implicit model cut open, behind its normalisation.

    Attributes:
        inject: images to the layer's input h, (N, n).
        cell: the layer f, (z, h) -> (N, n).
        read: state and h to logits (N, classes).
    """

    inject: Callable[[Tensor], Tensor]
    cell: EquilibriumCell
    read: Callable[[Tensor, Tensor], Tensor]


class View(nn.Module):
    """Normalised images to logits by a way of its own.

    Args:
        model: the body whose weights are used; a submodule, so that freezing it reaches them.
        logits: the way, from images to logits.
    """

    def __init__(self, model: nn.Module, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


def state_views(body: nn.Module, parts: Callable[[], Parts]) -> dict[str, nn.Module]:
    """The views every implicit model has.

    - `unrolled`: logits and gradient of the last of 12 damped steps from zero, by backpropagation;
    - `intermediate`: the same for the mean of the logits read at every one of these steps;
    - `simultaneous`: the adjoint is iterated along the same states, one step per state.
    """
    ways: Mapping[str, Callable[[Parts, Tensor], Tensor]] = {
        "unrolled": unrolled,
        "intermediate": intermediate,
        "simultaneous": simultaneous,
    }

    def through(way: Callable[[Parts, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def logits(x: Tensor) -> Tensor:
            cut = parts()
            with full_precision(cut.inject(x)) as h:
                return way(cut, h)

        return logits

    return {name: View(body, through(way)) for name, way in ways.items()}


def unrolled(parts: Parts, h: Tensor) -> Tensor:
    """Logits of the last damped iterate, (N, classes)."""
    return parts.read(_trajectory(parts.cell, h)[-1], h)


def intermediate(parts: Parts, h: Tensor) -> Tensor:
    """Mean of the logits of all damped iterates, (N, classes)."""
    return torch.stack([parts.read(z, h) for z in _trajectory(parts.cell, h)]).mean(0)


def simultaneous(parts: Parts, h: Tensor) -> Tensor:
    """Logits of the last damped iterate; u ← (1 − λ) u + λ (J(zₜ)ᵀu + g) over the same iterates as its adjoint."""
    fixed = h.detach()
    with torch.no_grad():
        states = _trajectory(parts.cell, fixed)
    value = parts.cell(states[-1], h)
    count(f_evaluations=len(h))
    if value.requires_grad:

        def adjoint(gradient: Tensor) -> Tensor:
            u = torch.zeros_like(gradient)
            for state in states:
                with torch.enable_grad():
                    z = state.detach().requires_grad_()
                    pulled = torch.autograd.grad(parts.cell(z, fixed), z, u)[0]
                count(f_evaluations=len(u), vjps=len(u))
                u = (1 - DAMPING) * u + DAMPING * (pulled + gradient)
            return u

        value.register_hook(adjoint)
    return parts.read(with_value(value, states[-1]), h)


def _trajectory(cell: EquilibriumCell, h: Tensor) -> list[Tensor]:
    """z₁ … z_T of the damped iteration from zero, differentiable in h."""
    z, states = torch.zeros_like(h), []
    for _ in range(STEPS):
        z = (1 - DAMPING) * z + DAMPING * cell(z, h)
        states.append(z)
    count(f_evaluations=STEPS * len(h))
    return states

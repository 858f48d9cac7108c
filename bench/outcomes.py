"""From a model, an attack and a batch of examples to outcomes: the heart of a cell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attacks.contract import ContractError, Search, linf, run_attack
from attacks.draws import Draws
from bench.data.load import as_pixels
from models.counting import counting

Outcomes = dict[str, NDArray[Any]]


@dataclass
class Budget:
    """What was spent, summed over examples; one forward of a batch of N counts N."""

    forwards: int = 0
    backwards: int = 0
    f_evaluations: int = 0
    vjps: int = 0
    seconds: float = 0.0

    def add(self, other: "Budget") -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Counted(nn.Module):
    """A model that counts its forwards and backwards, and checks its logits' shape."""

    def __init__(self, model: nn.Module, budget: Budget, classes: int) -> None:
        super().__init__()
        self.model, self.budget, self.classes = model, budget, classes

    def forward(self, x: Tensor) -> Tensor:
        logits = cast(Tensor, self.model(x))
        if not isinstance(logits, Tensor) or logits.shape != (len(x), self.classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ContractError(f"the model must return logits {(len(x), self.classes)}, got {got}")
        self.budget.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.budget.backwards += len(gradient)


def evaluate(
    model: nn.Module,
    classes: int,
    search: Search,
    x: Tensor,
    y: Tensor,
    eps: float,
    indices: Sequence[int],
    draws: Callable[[Sequence[int]], Draws],
    batch: int,
) -> tuple[Outcomes, Budget]:
    """Outcomes of consecutive test examples, in order, and the budget they took.

    Args:
        model: in eval mode, on its device.
        search: the attack, options bound.
        x, y: uint8 images (N, C, H, W) and labels (N,), on the CPU.
        eps: radius in units of the pixel range.
        indices: the examples' positions in the test set.
        draws: random draws for given positions.
        batch: images per batch; batches are cut at multiples of it.

    Returns:
        Columns index, label, clean, adversarial (predictions), broken, linf, residual, each (N,).
        `broken` means classified correctly when clean and wrongly when attacked.
    """
    budget = Budget()
    counted = Counted(model, budget, classes).eval()
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    started = time.monotonic()
    parts: list[Outcomes] = []
    with counting() as work, parametrize.cached():
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            images, labels = as_pixels(x[rows]).to(device), y[rows].to(device)
            radius = torch.full((len(images),), eps, device=device)
            with torch.no_grad():
                clean = counted(images).argmax(1)
            attacked = run_attack(search, counted, images, labels, radius, draws(indices[rows]))
            parts.append(_judge(counted, images, labels, clean, attacked, indices[rows]))
    budget.f_evaluations, budget.vjps = work.f_evaluations, work.vjps
    budget.seconds = time.monotonic() - started
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, budget


@torch.no_grad()
def _judge(counted: Counted, x: Tensor, y: Tensor, clean: Tensor, attacked: Tensor, indices: Sequence[int]) -> Outcomes:
    """The verdict on the final images: a forward of its own, never a value the search computed."""
    logits = counted(attacked)
    if not bool(logits.isfinite().all()):
        raise ContractError("the model returned logits that are not finite")
    adversarial = logits.argmax(1)
    figures = getattr(counted.model, "diagnostics", None)
    residual = figures(attacked).get("residual") if figures else None
    if residual is None:
        residual = torch.full((len(x),), torch.nan)
    columns = {
        "label": y.to(torch.int32),
        "clean": clean.to(torch.int32),
        "adversarial": adversarial.to(torch.int32),
        "broken": (clean == y) & (adversarial != y),
        "linf": linf(x, attacked).float(),
        "residual": residual.float(),
    }
    return {"index": np.asarray(indices, np.int32)} | {name: t.cpu().numpy() for name, t in columns.items()}

"""From a model, an attack and a batch of examples to outcomes: the heart of a cell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attacks.apgd import find_views
from attacks.cascade import STANDING, Cascade, Trail
from attacks.contract import ContractError, Search, linf, run_attack
from attacks.draws import Draws
from bench.data.load import as_pixels
from bench.spaces import Space, Victim, in_space
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


class Keep(Protocol):
    """Where the trail of a batch, named by its first row, lies between a cascade's stages, with what was spent."""

    def load(self, start: int) -> tuple[Trail, Budget] | None: ...

    def save(self, start: int, trail: Trail, spent: Budget) -> None: ...


class Forget:
    """Keeps nothing."""

    def load(self, start: int) -> tuple[Trail, Budget] | None:
        return None

    def save(self, start: int, trail: Trail, spent: Budget) -> None:
        return None


FORGET = Forget()


@dataclass(frozen=True)
class Earlier:
    """What is known of the examples from a smaller radius.

    Attributes:
        outcomes: the columns, as `evaluate` gave them.
        images: adversarial images, and of those that stand the best found, (N, C, H, W), float32.
    """

    outcomes: Outcomes
    images: Tensor

    def part(self, rows: slice) -> "Earlier":
        return Earlier({name: column[rows] for name, column in self.outcomes.items()}, self.images[rows])


class Counted(nn.Module):
    """A model that counts its forwards and backwards, and checks its logits' shape; so do its views."""

    def __init__(self, model: nn.Module, budget: Budget, classes: int, twin: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.budget, self.classes, self.twin = model, budget, classes, twin

    def views(self) -> dict[str, nn.Module]:
        """The model's views, and its undefended twin under the name `twin`."""
        found = dict(find_views(self.model))
        if self.twin is not None:
            found["twin"] = self.twin
        # A view may have modules of its own, which freezing the model has not reached.
        frozen = {name: view.eval().requires_grad_(False) for name, view in found.items()}
        return {name: Counted(view, self.budget, self.classes).eval() for name, view in frozen.items()}

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
    space: Space = "pixel",
    keep: Keep = FORGET,
    final: list[Tensor] | None = None,
    twin: nn.Module | None = None,
    earlier: Earlier | None = None,
) -> tuple[Outcomes, Budget]:
    """Outcomes of consecutive test examples, in order, and the budget they took.

    Args:
        model: in eval mode, on its device.
        search: the attack, options bound.
        x, y: uint8 images (N, C, H, W) and labels (N,), on the CPU.
        eps: radius in units of the space.
        indices: the examples' positions in the test set.
        draws: random draws for given positions.
        batch: images per batch; batches are cut at multiples of it.
        space: what is attacked and judged, the model or its body behind the normalisation.
        keep: what a cascade found before it was interrupted, and where it is kept from now on.
        final: where the images that are judged go, batch by batch, on the CPU.
        twin: the undefended twin, offered to the attack as a view.
        earlier: outcomes and images at a smaller radius, which a cascade goes on from. Who was broken there is
            broken here, by the same image.

    Returns:
        Columns index, label, clean, adversarial (predictions), broken, broken_by, linf, residual, each
        (N,). `broken` means classified correctly when clean and wrongly when attacked; `broken_by` is
        the position of the cascade's stage that did it, −1 elsewhere; `linf` is in pixel units. Then the
        budget, and the final images, (N, C, H, W), on the CPU.

    Raises:
        BenchError: the model cannot be attacked in this space.
    """
    victim = in_space(model, space)
    budget, kept = Budget(), Budget()
    behind = None if twin is None else in_space(twin, space).model
    counted = Counted(victim.model, budget, classes, behind).eval()
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    started = time.monotonic()
    parts: list[Outcomes] = []
    with counting() as work, parametrize.cached():

        def spent() -> Budget:
            seconds = time.monotonic() - started
            total = replace(budget, f_evaluations=work.f_evaluations, vjps=work.vjps, seconds=seconds)
            total.add(kept)
            return total

        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            images, labels = victim.enter(as_pixels(x[rows]).to(device)), y[rows].to(device)
            radius = torch.full((len(images),), eps, device=device)
            with torch.no_grad():
                clean = counted(images).argmax(1)
            # What was kept last holds what was spent on the batches before, too.
            before = None if earlier is None else earlier.part(rows)
            trail, kept = keep.load(start) or (_begin(before), kept)
            pursue = _followed(search, trail, keep, start, spent)
            pixel_space = space == "pixel"
            attacked = run_attack(
                pursue, counted, images, labels, radius, draws(indices[rows]), pixel_space=pixel_space
            )
            if final is not None:
                final.append(attacked.cpu())
            judged = _judge(victim, counted, images, labels, clean, attacked, trail, indices[rows])
            parts.append(judged if before is None else _carried(judged, before.outcomes))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, spent()


def _begin(earlier: Earlier | None) -> Trail:
    if earlier is None:
        return Trail()
    return Trail(0, earlier.images, torch.tensor(earlier.outcomes["broken_by"]))


def _carried(judged: Outcomes, before: Outcomes) -> Outcomes:
    """The verdict, but for examples that were broken at a smaller radius the verdict from there: same image."""
    return {name: np.where(before["broken"], before[name], column) for name, column in judged.items()}


def same_outcomes(a: Outcomes, b: Outcomes) -> bool:
    """Whether two shards hold the same, bit for bit."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def _followed(search: Search, trail: Trail, keep: Keep, start: int, spent: Callable[[], Budget]) -> Search:
    """A cascade that keeps its trail after every stage; any other search as it is."""
    if not isinstance(search, Cascade):
        return search

    def cascade(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        return search.follow(model, x, y, eps, draws, trail=trail, after=lambda: keep.save(start, trail, spent()))

    return cascade


@torch.no_grad()
def _judge(
    victim: Victim,
    counted: Counted,
    x: Tensor,
    y: Tensor,
    clean: Tensor,
    attacked: Tensor,
    trail: Trail,
    indices: Sequence[int],
) -> Outcomes:
    """The verdict on the final images: a forward of its own, never a value the search computed."""
    logits = counted(attacked)
    if not bool(logits.isfinite().all()):
        raise ContractError("the model returned logits that are not finite")
    adversarial = logits.argmax(1)
    broken = (clean == y) & (adversarial != y)
    broken_by = torch.full_like(y, STANDING) if trail.broken_by is None else trail.broken_by
    figures = getattr(victim.model, "diagnostics", None)
    with counting():  # a look at the verdict, not part of what the attack or the verdict costs
        residual = figures(attacked).get("residual") if figures else None
    if residual is None:
        residual = torch.full((len(x),), torch.nan)
    columns = {
        "label": y.to(torch.int32),
        "clean": clean.to(torch.int32),
        "adversarial": adversarial.to(torch.int32),
        "broken": broken,
        "broken_by": torch.where(broken, broken_by, STANDING).to(torch.int8),
        "linf": linf(x, attacked, victim.unit).float(),
        "residual": residual.float(),
    }
    return {"index": np.asarray(indices, np.int32)} | {name: t.cpu().numpy() for name, t in columns.items()}

"""What an evaluation spends, and the model that counts it and is only lent its images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import ContractError
from bench.attacks.core.gradient_watch import Watch
from bench.attacks.core.surrogate_views import find_views
from bench.errors import BenchError, first_line
from bench.models.inference.folding import folded_for
from bench.system.torch_state import torch_state_kept


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

    def shared(self, parts: Sequence[float]) -> list["Budget"]:
        """Divided in proportion to `parts`, whole numbers that sum to what there was."""
        ends = np.cumsum(parts) / max(sum(parts), 1e-9)

        def cut(name: str) -> list[Any]:
            total = getattr(self, name)
            marks = [total * float(end) for end in ends]
            if isinstance(total, int):
                marks = [round(mark) for mark in marks]
            return [b - a for a, b in pairwise([0, *marks])]

        columns = {item.name: cut(item.name) for item in fields(self)}
        return [Budget(**{name: column[k] for name, column in columns.items()}) for k in range(len(parts))]

    def less(self, other: "Budget") -> "Budget":
        """What was spent since `other`."""
        return Budget(*(getattr(self, item.name) - getattr(other, item.name) for item in fields(self)))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Counted(nn.Module):
    """A model that counts its forwards and backwards, and checks its logits' shape; so do its views.

    The model gets a copy of the images, whatever it does to them: a model that writes into its input would move images
    that harness and attack hold. A gradient flows through the copy, which is also where `watch` meets every one. Grad
    mode is put back behind the model.

    Attributes:
        watch: what gradients were like; of views and folded form too.
    """

    def __init__(
        self,
        model: nn.Module,
        budget: Budget,
        classes: int,
        twin: nn.Module | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__()
        self.model, self.budget, self.classes, self.twin = model, budget, classes, twin
        self.watch = watch or Watch()
        self._copies: list[Counted] = []  # a list hides its modules: the contract's checks are of the model alone

    def views(self) -> dict[str, nn.Module]:
        """The model's views, and its undefended twin under the name `twin`."""
        found = dict(find_views(self.model))
        if self.twin is not None:
            found["twin"] = self.twin
        # A view may have modules of its own, which freezing the model has not reached.
        frozen = {name: view.eval().requires_grad_(False) for name, view in found.items()}
        made = {name: Counted(view, self.budget, self.classes, watch=self.watch) for name, view in frozen.items()}
        return {name: view.eval() for name, view in made.items()}

    def folded(self, x: Tensor) -> "Counted":
        """The model's folded form (`bench.models.inference.folding`), where it agrees on some of the first x.

        One copy for all batches: `parametrize.cached` knows modules by `id`, which a copy that is gone passes on.
        """
        if not self._copies:
            folded = folded_for(self.model, x)
            self._copies.append(Counted(folded, self.budget, self.classes, watch=self.watch).eval())
        return self._copies[0]

    def forward(self, x: Tensor) -> Tensor:
        lent = x.clone()
        if lent.requires_grad and self.watch.looks:
            lent.register_hook(partial(self.watch.saw, x.detach()))
        with torch_state_kept():
            logits = self._logits(lent)
        self.budget.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _logits(self, x: Tensor) -> Tensor:
        try:
            logits = self.model(x)
        except (BenchError, ContractError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ContractError(f"the model raised {first_line(error)} for images {tuple(x.shape)}") from error
        if isinstance(logits, Tensor) and logits.shape == (self.classes,) and len(x) == 1:
            logits = logits[None]  # of a model that squeezes
        if not isinstance(logits, Tensor) or logits.shape != (len(x), self.classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ContractError(f"the model must return logits {(len(x), self.classes)}, got {got}")
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.budget.backwards += len(gradient)

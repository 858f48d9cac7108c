"""Random draws for attacks: one stream per example, the same for every model, radius, batch and device."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The randomness of one batch of examples.

    A draw depends on the attack seed, the data set, the example's index and the restart, on nothing
    else: models and radii are compared on the same draws, and batches can be cut anywhere.

    Attributes:
        seed: the attack seed.
        data: content hash of the data set.
        indices: position of each example in the test set, (N,).
        batch: positions of the batch these examples were picked from; None: they are the batch.
    """

    seed: int
    data: str
    indices: Sequence[int]
    batch: Sequence[int] | None = None

    def of(self, rows: Sequence[int]) -> "Draws":
        """The draws of some of the examples, by row; the batch's own seed stays what it was."""
        return replace(self, indices=[self.indices[row] for row in rows], batch=self.batch or self.indices)

    def unit(self, shape: Sequence[int], restart: int = 0) -> Tensor:
        """Uniform on [−1, 1), float32 on the CPU, (N, *shape)."""
        out = torch.empty(len(self.indices), *shape)
        for row, index in zip(out, self.indices, strict=True):
            row.uniform_(-1, 1, generator=self._generator("example", index, restart))
        return out

    def batch_seed(self) -> int:
        """One seed for the whole batch, for attacks that draw from torch's global generator."""
        return self._seed("batch", *(self.batch or self.indices))

    def _generator(self, *what: int | str) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(*what))

    def _seed(self, *what: int | str) -> int:
        text = "/".join(map(str, (self.seed, self.data, *what)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

"""What a cascade found so far of a shard in flight, in files beside the shard: a kill loses one stage at most."""

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from bench.attacks.core.cascade import CascadeState
from bench.evaluation.budget import Budget
from bench.system.files import write_atomically


@dataclass(frozen=True)
class StageCheckpoints:
    """One file per batch of the shard, hidden, written whole or not at all; whoever writes holds the shard's lock."""

    folder: Path
    shard: int

    def load(self, start: int) -> tuple[CascadeState, Budget] | None:
        """State and total spent as saved; None where there is nothing, or a damaged file: it is computed again."""
        try:
            with np.load(self._path(start), allow_pickle=False) as kept:
                budget = Budget(**json.loads(str(kept["budget"])))
                images, broken_by = torch.from_numpy(kept["images"]), torch.from_numpy(kept["broken_by"])
                met = torch.from_numpy(kept["met"]) if "met" in kept.files else None
                return CascadeState(int(kept["done"]), images, broken_by, met), budget
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
            return None

    def save(self, start: int, reached: CascadeState, spent: Budget) -> None:
        """Replace what lies there for this batch."""
        assert reached.images is not None and reached.broken_by is not None
        arrays = {
            "done": np.array(reached.done),
            "images": reached.images.cpu().numpy(),
            "broken_by": reached.broken_by.cpu().numpy(),
            "budget": np.array(json.dumps(spent.as_dict())),
        }
        if reached.met is not None:
            arrays["met"] = reached.met.cpu().numpy()

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

        write_atomically(self._path(start), write)

    def clear(self) -> None:
        """Remove every batch's file, and what a kill left of one half written."""
        for path in self.folder.glob(f"*.kept-{self.shard:05}-*"):
            path.unlink(missing_ok=True)

    def _path(self, start: int) -> Path:
        return self.folder / f".kept-{self.shard:05}-{start:03}.npz"

"""The store: one folder per cell, shards of outcomes, a manifest that says the cell is complete.

A shard is written to a temporary name, flushed and renamed, so it is wholly there or not there. The
manifest comes last. Killing the process loses at most the shards in flight. A cell that is to be kept may have all its
shards in one file (`compact`).
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from bench.attacks.core.cascade import STANDING
from bench.attacks.core.gradient_watch import NONE
from bench.errors import BenchError
from bench.evaluation.budget import Budget
from bench.evaluation.outcomes import Outcomes
from bench.store.cells import Cell
from bench.store.identity import SCHEMA
from bench.store.parquet import count_together, read_shard, read_together, write_shard, write_together
from bench.store.stage_checkpoints import StageCheckpoints
from bench.system.environment import describe
from bench.system.files import make_folder, read_json, under_any_model, write_json


class Store:
    """Cells under one folder. Raises BenchError where that folder holds another schema."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        marker = folder / "store.json"
        if marker.exists():
            found = read_json(marker).get("schema")
            if found != SCHEMA:
                raise BenchError(
                    f"store {folder} has schema {found}, this version reads schema {SCHEMA}: "
                    "choose another with --store, or use the version that wrote it."
                )

    def cell_folder(self, cell: Cell) -> Path:
        """Its own, or the one that it lies in under another name of the same model."""
        return under_any_model(self.folder / cell.folder())

    def shard_path(self, cell: Cell, shard: int) -> Path:
        return self.cell_folder(cell) / f"shard-{shard:05}.parquet"

    def together_path(self, cell: Cell) -> Path:
        """Where all shards of a cell are that was made compact; single ones beside it are newer."""
        return self.cell_folder(cell) / "shards.parquet"

    def place(self, cell: Cell, shard: int) -> Path:
        """The file that a shard is in, or will be."""
        single, together = self.shard_path(cell, shard), self.together_path(cell)
        return together if not single.exists() and shard < count_together(together) else single

    def images_path(self, cell: Cell, shard: int) -> Path:
        """Where the attacked images of a shard are, if they were kept."""
        return self.cell_folder(cell) / f"shard-{shard:05}.images.safetensors"

    def has(self, cell: Cell, shard: int, images: bool = False) -> bool:
        """Whether a shard is there, and with `images` also the attacked images, of which a certificate has none."""
        # In this order: `compact` writes the file for all before single ones go.
        there = self.shard_path(cell, shard).exists() or shard < count_together(self.together_path(cell))
        return there and (not images or cell.certificate or self.images_path(cell, shard).exists())

    def missing(self, cell: Cell, examples: int, images: bool = False) -> list[int]:
        """Shards of the first `examples` test images that are not there yet, or without their images."""
        return [shard for shard in cell.shards(examples) if not self.has(cell, shard, images)]

    def claim(self, cell: Cell, shard: int) -> FileLock | None:
        """The right to compute a shard, or None while another process holds it. The system frees it at a kill."""
        folder = self.cell_folder(cell)
        if not (self.folder / "store.json").exists():
            write_json(self.folder / "store.json", {"schema": SCHEMA})
        make_folder(folder)
        return _lock(folder / f".shard-{shard:05}.lock")

    def release(self, lock: FileLock) -> None:
        """Give a claim back and leave no file behind; whoever still has it open finds the shard written."""
        path = Path(lock.lock_file)
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # Windows lets nobody delete what is open
            lock.release()
            with suppress(OSError):
                path.unlink(missing_ok=True)
        else:
            lock.release()

    def stage_checkpoints(self, cell: Cell, shard: int) -> StageCheckpoints:
        """Where a shard's half-done work lies until it is written."""
        return StageCheckpoints(self.cell_folder(cell), shard)

    def write(self, cell: Cell, shard: int, outcomes: Outcomes, budget: Budget) -> None:
        """Write one shard, and the cell's identity beside it."""
        self._write_identity(cell)
        write_shard(self.shard_path(cell, shard), outcomes, budget)
        self.stage_checkpoints(cell, shard).clear()

    def _write_identity(self, cell: Cell) -> None:
        path = self.cell_folder(cell) / "key.json"
        if not path.exists():
            write_json(path, cell.identity.to_json())

    def read(self, cell: Cell, shard: int) -> tuple[Outcomes, Budget]:
        """One shard's outcomes and budget. Raises BenchError for a damaged file or one of other examples."""
        path, single = self.place(cell, shard), self.shard_path(cell, shard)
        try:
            outcomes, budget = read_shard(path) if path == single else read_together(path, shard)
        except BenchError:
            path = self.together_path(cell)
            if single.exists() or shard >= count_together(path):
                raise
            outcomes, budget = read_together(path, shard)  # `compact` took the single file away meanwhile
        if outcomes["index"].tolist() != list(cell.images_of(shard)):
            raise BenchError(f"shard {path} holds other examples than its name says; delete it and run again.")
        if not cell.certificate:
            # Shards written before cascades have no such column, and no stages either.
            outcomes.setdefault("broken_by", np.full(len(outcomes["index"]), STANDING, np.int8))
            # Nor had they what gradients were like.
            outcomes.setdefault("gradient", np.full(len(outcomes["index"]), NONE, np.int8))
        return outcomes, budget

    def compact(self, cell: Cell) -> int:
        """Put a complete cell's shards into one file; returns how many files of single shards went into it.

        A kill leaves the single files beside the new one, and nothing lost. A cell that another process is putting
        together is left to it.
        """
        lock = _lock(self.cell_folder(cell) / ".compact.lock")
        if lock is None:
            return 0
        try:
            return self._compact(cell)
        finally:
            self.release(lock)

    def _compact(self, cell: Cell) -> int:
        shards = range(self._vouched(cell))
        single = [path for shard in shards if (path := self.shard_path(cell, shard)).exists()]
        # A manifest written anew may name fewer shards than are together already.
        if not single or len(shards) < count_together(self.together_path(cell)):
            return 0
        if self.missing(cell, cell.images_of(shards[-1]).stop):
            return 0
        write_together(self.together_path(cell), [self.read(cell, shard) for shard in shards])
        for path in single:
            path.unlink(missing_ok=True)
        return len(single)

    def available(self, cell: Cell) -> int:
        """How many of the first test images are there without a gap."""
        shards = cell.shards(0)
        first = next((shard for shard in shards if not self.has(cell, shard)), len(shards))
        return cell.images_of(first - 1).stop if first else 0

    def outcomes(self, cell: Cell, examples: int) -> Outcomes | None:
        """Outcomes of the first `examples` test images (0: all) in order; None unless all are there."""
        if self.missing(cell, examples):
            return None
        parts = [self.read(cell, shard)[0] for shard in cell.shards(examples)]
        wanted = min(examples or cell.examples, cell.examples)
        return {name: np.concatenate([part[name] for part in parts])[:wanted] for name in parts[0]}

    def budget(self, cell: Cell, examples: int) -> Budget:
        """What the shards of the first `examples` images took."""
        total = Budget()
        for shard in cell.shards(examples):
            total.add(self.read(cell, shard)[1])
        return total

    def manifest(self, cell: Cell) -> dict[str, Any] | None:
        """None also for a damaged one: without a manifest that can be read a cell is not complete."""
        try:
            found = read_json(self.cell_folder(cell) / "manifest.json")
        except BenchError:
            return None
        return found if isinstance(found.get("shards"), int) else None

    def complete(self, cell: Cell, examples: int) -> bool:
        """Whether a manifest vouches for the first `examples` images and their shards are there."""
        return self._vouched(cell) >= len(cell.shards(examples)) and not self.missing(cell, examples)

    def _vouched(self, cell: Cell) -> int:
        """How many shards the manifest names, 0 without one."""
        manifest = self.manifest(cell)
        return 0 if manifest is None else int(manifest["shards"])

    def discard(self, cell: Cell) -> None:
        """Take out everything that was computed of a cell, the manifest first: a kill leaves nothing that vouches."""
        folder = self.cell_folder(cell)
        kept = (folder.glob(pattern) for pattern in ("manifest.json", "shard*.parquet", "shard-*.safetensors"))
        for path in [path for paths in kept for path in paths]:
            path.unlink(missing_ok=True)
        for shard in cell.shards(0):
            self.stage_checkpoints(cell, shard).clear()

    def finish(self, cell: Cell, examples: int, request: dict[str, Any], seen: Mapping[str, Any] | None = None) -> None:
        """Write the manifest once the shards are there.

        Args:
            request: what was asked for, as passed and resolved.
            seen: what is known of the model (`bench.execution.beforehand`).
        """
        self._write_identity(cell)
        if self.complete(cell, examples):
            return
        shards = max(len(cell.shards(examples)), self._vouched(cell))
        content = {
            "key": cell.key(),
            "label": cell.source.label,
            "train_seed": cell.source.train_seed,
            "checkpoint": Path(cell.source.checkpoint).name,
            "shards": shards,
            "examples": cell.images_of(shards - 1).stop,
            "budget": self.budget(cell, cell.images_of(shards - 1).stop).as_dict(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request,
            "environment": describe(),
            **(seen or {}),
        }
        for shard in range(shards):
            # A kill between a shard's last byte and the end of `write` leaves its half-done work behind.
            self.stage_checkpoints(cell, shard).clear()
        write_json(self.cell_folder(cell) / "manifest.json", content)


def _lock(path: Path) -> FileLock | None:
    """The lock of this file, None while another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock

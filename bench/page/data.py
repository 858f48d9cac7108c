"""The page's content as plain data: a row per number, and what stands behind it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.diagnostics.suite import SUITE
from bench.errors import BenchError
from bench.page.evidence import Diagnosis, Evidence, certified_share, diagnoses, evidence, radius
from bench.paper.match import name_and_recipe, printed_of
from bench.registry import attack, protocol
from bench.settings.radii import show_eps
from bench.statistics import Share
from bench.store.cells import Cell, engine_for
from bench.store.identity import ENGINES
from bench.store.store import Store
from bench.store.stored_cells import StoredCell, inventory
from bench.system.canonical import canonical
from bench.system.files import read_json, safe_name
from bench.tables.table_lines import clean_share, robust_share

# Protocols that run the paper's two attacks as the paper gives them.
OF_PAPER = ("paper", "paper-normalized")


def page_data(store: Store, checkpoints: Path) -> dict[str, Any]:
    """Rows, cells and shared pieces, ready for JSON.

    Args:
        checkpoints: whose cards say how long a model was trained.

    Returns:
        `rows`: one per complete cell of an attack; `cells`: key and manifest by index; `shared`: pieces of those that
        recur, referred to as {"$": index}; `protocols`: what each is; `problems`: a line per file that is unreadable.
    """
    everything, problems = inventory(store)
    stored = [one for one in everything if _readable(one, problems)]
    of_model: dict[str, list[StoredCell]] = {}
    for one in stored:
        of_model.setdefault(_model(one), []).append(one)
    found, more = diagnoses(store.folder)
    index = _CellIndex()
    rows = [
        _row(one, evidence(one, of_model[_model(one)], found), checkpoints, index)
        for one in stored
        if not one.certificate
    ]
    return {
        "rows": rows,
        "cells": index.cells,
        "shared": index.shared,
        "protocols": {entry.name: entry.summary for entry in protocol},
        "problems": [*problems, *more],
    }


class _CellIndex:
    """Keys and manifests, each once, and what they have in common once."""

    def __init__(self) -> None:
        self.cells: list[dict[str, Any]] = []
        self.shared: list[Any] = []
        self._cells: dict[str, int] = {}
        self._shared: dict[str, int] = {}

    def place(self, stored: StoredCell) -> int:
        """The index of a cell."""
        key = stored.cell.key()
        if key not in self._cells:
            self._cells[key] = len(self.cells)
            folder = stored.store.cell_folder(stored.cell).relative_to(stored.store.folder)
            content = {"key": self._lean(stored.cell.identity.to_json()), "manifest": self._lean(stored.manifest)}
            self.cells.append({"folder": folder.as_posix(), **content})
        return self._cells[key]

    def _lean(self, content: dict[str, Any]) -> dict[str, Any]:
        return {name: self._refer(value) if isinstance(value, dict) else value for name, value in content.items()}

    def _refer(self, value: dict[str, Any]) -> dict[str, int]:
        text = canonical(value)
        if text not in self._shared:
            self._shared[text] = len(self.shared)
            self.shared.append(value)
        return {"$": self._shared[text]}


def _readable(stored: StoredCell, problems: list[str]) -> bool:
    """Whether its outcomes are there; a file that is damaged is told."""
    try:
        certified_share(stored) if stored.certificate else robust_share(stored.outcomes)
    except (BenchError, KeyError) as error:
        problems.append(f"{stored.store.cell_folder(stored.cell)}: {error}")
        return False
    return True


def _row(stored: StoredCell, beside: Evidence, checkpoints: Path, index: _CellIndex) -> dict[str, Any]:
    cell, robust = stored.cell, robust_share(stored.outcomes)
    paper = printed_of(cell.dataset, stored.label) if cell.protocol in OF_PAPER else {}
    usual = "[" not in cell.attack_label
    printed = paper.get((cell.attack, cell.eps)) if usual else None
    return {
        "model": stored.label,
        "recipe": name_and_recipe(stored.label)[1],
        "training": _training(stored, checkpoints),
        "dataset": cell.dataset,
        "protocol": cell.protocol,
        "attack": cell.attack_label,
        "how": _how(cell),
        "control": cell.attack_label.endswith("(control)"),
        "eps": radius(cell.eps),
        "epsText": show_eps(cell.eps),
        "trainSeed": cell.source.train_seed,
        "attackSeed": cell.seed,
        "device": cell.identity.device,
        "clean": _share(clean_share(stored.outcomes)),
        "paperClean": paper.get(("", Fraction(0))),
        "robust": _share(robust),
        "paper": printed,
        "difference": None if printed is None else round(robust.percent - printed, 2),
        "cell": index.place(stored),
        **_beside(beside, index),
    }


def _how(cell: Cell) -> str:
    """What tells a number from another of the same name: the radii it goes on from, and an engine other than usual."""
    known = cell.attack in attack
    usual, chain = engine_for(attack[cell.attack] if known else None, "packed"), cell.identity.chain or ()
    engine, version = cell.identity.engine, cell.identity.engine_version
    other = (engine, version) != (usual, ENGINES[usual])
    notes = [f"after {', '.join(map(show_eps, chain))}" * bool(chain), f"engine {engine} {version}" * other]
    return ", ".join(filter(None, notes))


def _beside(found: Evidence, index: _CellIndex) -> dict[str, Any]:
    return {
        "worst": _share(found.worst),
        "certified": _share(found.certified),
        "verdict": _verdict(found.diagnosis),
        "behind": [{"what": what, "cell": index.place(one)} for what, one in found.cells],
    }


def _verdict(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    """Part of the suite has no reading and no level, whatever it found: the rest might have found something graver."""
    if diagnosis is None:
        return None
    stored, reading = diagnosis.stored, diagnosis.reading
    part = f"{len(stored.results)} of {len(SUITE)}"
    return {
        "name": reading.name if reading else f"partly diagnosed ({part})",
        "level": diagnosis.gravest if reading else None,
        "n": stored.n,
        "sentence": reading.sentence if reading else f"Only {part} diagnostics were run, too few for a verdict.",
        "results": [result.as_dict() for result in stored.results],
    }


def _model(stored: StoredCell) -> str:
    """Cells of the same model, data and device class have the same."""
    return stored.cell.identity.place()


def _share(share: Share | None) -> dict[str, float] | None:
    if share is None:
        return None
    low, high = share.interval
    return {"percent": round(share.percent, 4), "low": round(low, 4), "high": round(high, 4), "n": share.n}


def _training(stored: StoredCell, checkpoints: Path) -> str:
    """Epochs and seed of the checkpoint, and whether its training set was reduced; as much as its card tells."""
    seed = f"train seed {stored.cell.source.train_seed}"
    name = Path(str(stored.manifest.get("checkpoint") or "")).name
    card = (checkpoints / safe_name(stored.cell.dataset) / name).with_suffix(".json") if name else None
    try:
        content = read_json(card) if card and card.exists() else {}
        epochs, reduced = content["settings"]["epochs"], content.get("training_set", {}).get("reduced")
    except (BenchError, KeyError, TypeError, AttributeError):
        return seed
    parts = [f"{epochs} epoch{'s' if epochs != 1 else ''}", f"reduced: {reduced}" if reduced else "", seed]
    return ", ".join(filter(None, parts))

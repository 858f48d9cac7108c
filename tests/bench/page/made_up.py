"""A small store with everything a page can show: two models, a hostile name, worst case, certificate, diagnostics."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.diagnostics.result import DiagnosticResult
from bench.diagnostics.suite import SUITE
from bench.store.store import Store
from bench.system.canonical import canonical
from bench.system.files import write_json
from tests.bench.tables.stored import WRONG, N, store_cell

RADII = [Fraction(n, 255) for n in (2, 4, 8)]
HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'


def standing(count: int) -> Any:
    """Predictions under an attack that leaves the first `count` images right."""
    return (np.arange(N) < count).astype(np.int32)


def made_up_store(folder: Path) -> Store:
    """`deq` on mnist under the paper's attacks, a control, `adaptive`, a certificate; a hostile model on digits.

    The paper's cells are wholly diagnosed, the adaptive ones by two diagnostics.
    """
    store = Store(folder)
    of_paper, adaptive = [], []
    for number, eps in enumerate(RADII):
        for attack in ("ifgsm", "pgd"):
            of_paper.append(store_cell(store, attack, eps, standing(280 - 60 * number), dataset="mnist"))
        adaptive.append(
            store_cell(store, "adaptive", eps, standing(240 - 60 * number), dataset="mnist", protocol="adaptive")
        )
        proven = np.arange(N) < 200 - 60 * number
        store_cell(store, "certificate", eps, standing(N), dataset="mnist", protocol="certificate", certified=proven)
        store_cell(store, "pgd", eps, standing(100 - 30 * number), label=HOSTILE, weights="b")
    store_cell(store, "pgd", RADII[0], standing(N), dataset="mnist", protocol="paper-normalized")
    gradient = DiagnosticResult(
        "gradient", "WARN", f"Some gradients are zero. {HOSTILE}", 0.02, 0.01, 100, (0.01, 0.05), "masking"
    )
    store_findings(folder, of_paper, 100, gradient)
    store_findings(folder, adaptive, 30, only=("noise", "determinism"))
    return store


def store_findings(
    folder: Path,
    cells: Sequence[dict[str, Any]],
    n: int,
    *results: DiagnosticResult,
    only: Sequence[str] = tuple(SUITE),
) -> Path:
    """Store a diagnosis of cells on the first n images, OK but for `results`. Returns the case's folder."""
    identity = {"cells": sorted(cells, key=canonical), "twin": None}
    key = hashlib.sha256(canonical(identity).encode()).hexdigest()
    case = folder / f"diagnostics/{cells[0]['data']['name']}/deq/{cells[0]['protocol']['name']}-{key[:16]}"
    found = {name: DiagnosticResult(name, "OK", "Nothing.", 0.0, 0.1, n, (0.0, 0.05)) for name in only}
    for name, result in {**found, **{result.name: result for result in results}}.items():
        content = {"key": key, "identity": identity, "version": SUITE[name].version, "result": result.as_dict()}
        write_json(case / f"n{n}/{name}.json", content)
    return case


__all__ = ["HOSTILE", "RADII", "WRONG", "made_up_store", "standing", "store_findings"]

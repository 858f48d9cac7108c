"""A small store with everything a page can show: two models, a hostile name, worst case, certificate, diagnostics."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.diagnostics.result import Result, Sign, Verdict
from bench.diagnostics.suite import SUITE
from bench.files import write_json
from bench.store import Store
from tests.report.stored import WRONG, N, store_cell

RADII = [Fraction(n, 255) for n in (2, 4, 8)]
SHORT = {"iterations": 10, "members": "all", "queries": 50, "targets": 3, "twin": "auto"}
HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'


def standing(count: int) -> Any:
    """Predictions under an attack that leaves the first `count` images right."""
    return (np.arange(N) < count).astype(np.int32)


def made_up_store(folder: Path) -> Store:
    """`deq` on mnist under the paper's attacks, a control, `adaptive`, a certificate; a hostile model on digits."""
    store = Store(folder)
    for number, eps in enumerate(RADII):
        for attack in ("ifgsm", "pgd"):
            identity = store_cell(store, attack, eps, standing(280 - 60 * number), dataset="mnist")
        store_cell(
            store, "adaptive", eps, standing(240 - 60 * number), dataset="mnist", protocol="adaptive", options=SHORT
        )
        proven = np.arange(N) < 200 - 60 * number
        store_cell(store, "certificate", eps, standing(N), dataset="mnist", protocol="certificate", certified=proven)
        store_cell(store, "pgd", eps, standing(100 - 30 * number), label=HOSTILE, weights="b")
    store_cell(store, "pgd", RADII[0], standing(N), dataset="mnist", protocol="paper-normalized")
    results: list[tuple[str, Verdict, Sign | None, str]] = [
        ("gradient", "WARN", "masking", f"Some gradients are zero. {HOSTILE}"),
        ("noise", "OK", None, "Noise breaks nothing that the attack does not."),
    ]
    for name, verdict, sign, sentence in results:
        result = Result(name, verdict, sentence, 0.02, 0.01, 100, (0.01, 0.05), sign)
        content = {"identity": {"cells": [identity]}, "version": SUITE[name].version, "result": result.as_dict()}
        write_json(folder / f"diagnostics/mnist/deq/paper-0/n100/{name}.json", content)
    return store


__all__ = ["HOSTILE", "RADII", "WRONG", "made_up_store"]

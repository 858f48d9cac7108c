"""What judging kept images again gave, for the terminal, Markdown, CSV and JSON."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from bench.settings.radii import show_eps
from bench.store.cells import Cell
from bench.thresholds import SOLVER
from bench.verification.recheck import RecheckResult

NOTE = (
    f"Changed: verdicts on the kept images that are not as stored, of n, in per cent with 95 % Wilson interval; WARN "
    f"where the interval lies above {SOLVER.warn:.1%}, FAIL above {SOLVER.fail:.1%}.\n"
    "Now right: of those changed, images that are misclassified as stored. Ball and range: any image outside is FAIL.\n"
)


def records(cell: Cell, findings: Sequence[RecheckResult]) -> list[dict[str, Any]]:
    """One record per finding; shares in per cent."""
    head: dict[str, Any] = {"dataset": cell.dataset, "model": cell.source.label, "train_seed": cell.source.train_seed}
    head |= {"attack": cell.attack_label, "eps": show_eps(cell.eps)}
    out = []
    for found in findings:
        low, high = found.interval
        share: dict[str, Any] = {"changed": found.changed, "now_right": found.now_right, "n": found.n}
        share |= {"percent": 100 * found.changed / found.n, "low": 100 * low, "high": 100 * high}
        out.append({**head, "what": found.what, **share, "verdict": found.state, "note": found.note})
    return out


def render(found: Sequence[dict[str, Any]], form: Literal["terminal", "markdown", "csv", "json"]) -> str:
    """The records as text."""
    if form == "json":
        return json.dumps(list(found), indent=1, ensure_ascii=False) + "\n"
    if form == "csv":
        return pd.DataFrame(found).to_csv(index=False, float_format="%.4f")
    header = ["data set", "model", "seed", "attack", "ε", "judged", "changed", "now right", "n", "%", "verdict", ""]
    body = [
        [
            *(
                r[name]
                for name in ("dataset", "model", "train_seed", "attack", "eps", "what", "changed", "now_right", "n")
            ),
            f"{r['percent']:.2f} [{r['low']:.1f}, {r['high']:.1f}]",
            r["verdict"],
            r["note"],
        ]
        for r in found
    ]
    form_name = {"terminal": "plain", "markdown": "pipe"}[form]
    return tabulate(body, header, tablefmt=form_name, disable_numparse=True) + "\n\n" + NOTE

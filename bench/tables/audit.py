"""One line a model and radius: what its paper printed, what its protocol gives here, what the worst case leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pandas as pd

from bench.paper.match import printed_of
from bench.registry import attack
from bench.settings.radii import show_eps
from bench.statistics import Share
from bench.tables.markup import Format, Style, lay_out, style_of
from bench.tables.table_lines import Correct, Line

# Column of the audit by protocol.
PROTOCOLS = {"paper": "paper protocol", "paper-normalized": "paper-normalized (control)", "adaptive": "worst case"}
NONE = "—"

Who = tuple[str, str, int | None]  # data set, model, training seed


@dataclass
class Audit:
    """Everything known of one model on one data set, at one radius.

    Attributes:
        printed: by our attack's name, what the paper printed, in per cent.
        shares: by protocol and attack label, the share that is right both clean and attacked.
        certified: what any of its certificates proves, image by image; where a line does not say of which images it
            speaks, what the best one proves.
        proven: the images behind it, (N,).
        verdict: how the diagnostics of the paper's protocol read; what keeps them from being there.
    """

    dataset: str
    model: str
    train_seed: int | None
    eps: Fraction
    printed: dict[str, float]
    clean: Share | None = None
    shares: dict[str, dict[str, Share]] = field(default_factory=dict)
    certified: Share | None = None
    proven: Correct | None = None
    verdict: str = ""

    def add_certificate(self, share: Share, proven: Correct | None) -> None:
        """Take in what one certificate proves, and of which images."""
        if self.proven is not None and proven is not None and len(self.proven) == len(proven):
            proven = self.proven | proven
            share = Share(int(proven.sum()), len(proven))
        if self.certified is None or share.percent >= self.certified.percent:
            self.certified, self.proven = share, proven


def make_audits(lines: Mapping[str, Sequence[Line]], verdicts: Mapping[Who, str]) -> list[Audit]:
    """Audits in the order of the lines.

    Args:
        lines: by protocol, a table's lines.
        verdicts: by data set, model and training seed.
    """
    found: dict[tuple[str, str, int | None, Fraction], Audit] = {}
    for protocol, of_protocol in lines.items():
        for line in of_protocol:
            for eps, share in line.robust.items():
                name = f"{line.model} ({line.note})" if line.note else line.model
                printed = {a: v for (a, e), v in printed_of(line.dataset, line.model).items() if a and e == eps}
                verdict = verdicts.get((line.dataset, line.model, line.train_seed), "")
                blank = Audit(line.dataset, name, line.train_seed, eps, printed, verdict=verdict)
                audit = found.setdefault((line.dataset, name, line.train_seed, eps), blank)
                audit.clean = audit.clean or line.clean
                if line.kind == "certificate":
                    audit.add_certificate(share, line.right.get(eps))
                else:
                    audit.shares.setdefault(protocol, {})[line.attack] = share
    return list(found.values())


def audit_frame(audits: Sequence[Audit]) -> pd.DataFrame:
    """One record per number: what it is, per cent, interval, n."""
    records: list[dict[str, Any]] = []
    for audit in audits:
        head = {"dataset": audit.dataset, "model": audit.model, "train_seed": audit.train_seed}
        head |= {"eps": show_eps(audit.eps), "verdict": audit.verdict}
        numbers: list[tuple[str, str, Share | None]] = [("clean", "", audit.clean)]
        numbers += [(p, label, share) for p, by in audit.shares.items() for label, share in by.items()]
        numbers += [("certified", "", audit.certified)]
        for what, label, share in numbers:
            if share is not None:
                low, high = share.interval
                facts = {"accuracy": share.percent, "low": low, "high": high, "n": share.n}
                records.append({**head, "what": what, "attack": label, **facts})
        records += [{**head, "what": "printed", "attack": name, "accuracy": v} for name, v in audit.printed.items()]
    columns = ["dataset", "model", "train_seed", "eps", "what", "attack", "accuracy", "low", "high", "n", "verdict"]
    return pd.DataFrame(records, columns=columns).astype({"n": "Int64", "train_seed": "Int64"})


def render_audits(audits: Sequence[Audit], form: Format, colour: bool = False) -> str:
    """The audits as text; csv and json give every number a record of its own."""
    if form == "csv":
        return audit_frame(audits).to_csv(index=False, float_format="%.4f")
    if form == "json":
        return audit_frame(audits).to_json(orient="records", indent=1) + "\n"
    style = style_of(form, colour)
    header = [
        "Data set",
        "Model",
        "Seed",
        "ε",
        "n",
        "Clean",
        "Paper printed",
        *PROTOCOLS.values(),
        "Certified",
        "Verdict",
    ]
    body = []
    for audit in audits:
        numbers = [_several(audit.shares.get(protocol, {}), style) for protocol in PROTOCOLS]
        values = [style.text(f"{attack[a].label} {value:.2f}") for a, value in audit.printed.items()]
        n = "" if audit.clean is None else str(audit.clean.n)
        seed = "" if audit.train_seed is None else str(audit.train_seed)
        head = [style.text(t) for t in (audit.dataset, audit.model, seed, show_eps(audit.eps), n)]
        certified = style.text(NONE) if audit.certified is None else _one(audit.certified, style)
        clean = style.text(NONE) if audit.clean is None else _one(audit.clean, style)
        printed = style.join.join(values) or style.text(NONE)
        body.append([*head, clean, printed, *numbers, certified, style.text(audit.verdict)])
    return lay_out([style.text(name) for name in header], body, form)


def _several(shares: Mapping[str, Share], style: Style) -> str:
    """Per attack, its name before its number where there is more than one."""
    named = [
        (style.text(label.removesuffix(" (control)")) + " " if len(shares) > 1 else "", s)
        for label, s in shares.items()
    ]
    return style.join.join(name + _one(share, style, " ") for name, share in named) or style.text(NONE)


def _one(share: Share, style: Style, join: str | None = None) -> str:
    low, high = share.interval
    return f"{share.percent:.2f}{style.join if join is None else join}" + style.text(f"[{low:.1f}, {high:.1f}]")

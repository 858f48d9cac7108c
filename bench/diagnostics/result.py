"""What a diagnostic says, and how counts become verdicts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.statistics import Interval, wilson
from bench.thresholds import Thresholds, Verdict, verdict_of

Symptom = Literal["artefact", "contaminated", "unsteady", "masking", "weak attack", "non-convergence", "broken claim"]
Evidence = dict[str, float | int | str]


@dataclass(frozen=True)
class DiagnosticResult:
    """One diagnostic on one model under one protocol.

    Attributes:
        name: the diagnostic's.
        verdict: n/a where it does not apply, or on too few examples.
        sentence: what was found, in plain words.
        value: what is judged: a share of n examples unless the evidence says otherwise; None for n/a.
        threshold: the line nearest to being crossed, or the one that was.
        n: examples judged.
        interval: 95 % interval of the value.
        sign: what WARN and FAIL are a sign of; None: nothing that a reading is made from.
        evidence: further numbers.
    """

    name: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    threshold: float | None = None
    n: int = 0
    interval: Interval | None = None
    sign: Symptom | None = None
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def fired(self) -> bool:
        return self.verdict in ("WARN", "FAIL")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "DiagnosticResult":
        """The inverse of as_dict, through JSON. Raises TypeError or KeyError for other content."""
        interval = content["interval"]
        return DiagnosticResult(**{**content, "interval": tuple(interval) if interval else None})


def not_applicable(name: str, why: str, n: int = 0) -> DiagnosticResult:
    return DiagnosticResult(name, "n/a", why, n=n)


def of_share(
    name: str,
    hits: int,
    n: int,
    lines: Thresholds,
    sentence: str,
    sign: Symptom | None,
    evidence: Mapping[str, float | int | str] | None = None,
) -> DiagnosticResult:
    """The result for a share hits / n with its Wilson interval; n/a where there is nothing to judge."""
    if n == 0:
        return not_applicable(name, f"There is no image to judge. {sentence}")
    interval = wilson(hits, n)
    verdict, line = verdict_of(interval, lines)
    return DiagnosticResult(name, verdict, sentence, hits / n, line, n, interval, sign, evidence or {})

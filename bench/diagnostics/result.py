"""What a diagnostic says, and how counts become verdicts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any, Literal

from bench.statistics import Z95, wilson
from bench.thresholds import Thresholds

Verdict = Literal["OK", "WARN", "FAIL", "n/a"]
Symptom = Literal["artefact", "masking", "weak attack", "non-convergence", "broken claim"]
Interval = tuple[float, float]
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


def verdict_of(interval: Interval, lines: Thresholds) -> tuple[Verdict, float | None]:
    """The verdict where all of the interval must lie beyond a line, and the line that decided."""
    low = interval[0]
    if lines.fail is not None and low > lines.fail:
        return "FAIL", lines.fail
    if lines.warn is not None and low > lines.warn:
        return "WARN", lines.warn
    return "OK", lines.fail if lines.warn is None else lines.warn


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


def paired_difference(lost: int, won: int, n: int) -> tuple[float, Interval]:
    """(lost − won) / n for two verdicts on the same n examples, with its 95 % interval (Bonett & Price 2012).

    Args:
        lost: examples right by the first and wrong by the second; `won` the reverse.
    """
    first, second = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = first - second
    half = Z95 * sqrt((first + second - centre * centre) / (n + 2))
    return (lost - won) / n if n else 0.0, (max(-1.0, centre - half), min(1.0, centre + half))


def percent(share: float) -> str:
    """`3.2 %`."""
    return f"{100 * share:.1f} %"

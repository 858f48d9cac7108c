"""All diagnostics read together: what, if anything, the numbers suffer from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.diagnostics.result import DiagnosticResult, Symptom

ReadingName = Literal[
    "artefact",
    "contaminated",
    "unsteady",
    "masking",
    "weak attack",
    "non-convergence",
    "broken claim",
    "no sign of failure",
]

# In order of precedence: an artefact makes the others' numbers meaningless, masking makes an attack look weak.
_MEANING: dict[Symptom, str] = {
    "artefact": "the loop itself moves images, so its numbers measure no robustness",
    "contaminated": "the model fares otherwise on the test images than on others, so its numbers hold for these alone",
    "unsteady": "the model's answer depends on more than the image, so its numbers are those of how it was asked",
    "masking": "the model's gradient does not show what is there, so its accuracy under attack is too high",
    "weak attack": "the attack stops short of what it could find, so the accuracy is an upper bound and no more",
    "non-convergence": "predictions depend on where the solver stops, so the numbers are those of the stop",
    "broken claim": "what the model claims to be proven does not hold",
}


@dataclass(frozen=True)
class Reading:
    """What a table prints beside its numbers.

    Attributes:
        name: the sign that takes precedence.
        fired: names of the diagnostics that showed it.
        sentence: one line.
        failed: whether any diagnostic, of whatever sign, is FAIL.
        n: images that stored diagnostics were given; 0 where that is not known.
    """

    name: ReadingName
    fired: tuple[str, ...]
    sentence: str
    failed: bool
    n: int = 0


def read(results: Sequence[DiagnosticResult]) -> Reading:
    """The reading of a model's results. Evidence, never a certificate."""
    failed = any(result.verdict == "FAIL" for result in results)
    for sign, meaning in _MEANING.items():
        fired = tuple(f"{result.name} {result.verdict}" for result in results if result.fired and result.sign == sign)
        if fired:
            also = [f"{r.name} {r.verdict}" for r in results if r.fired and r.sign != sign]
            rest = f"; beside it {', '.join(also)}" if also else ""
            return Reading(sign, fired, f"{sign}: {meaning} ({', '.join(fired)}{rest}).", failed)
    judged = sum(result.verdict != "n/a" for result in results)
    noted = [f"{result.name} {result.verdict}" for result in results if result.fired]
    sentence = f"no sign of failure in {judged} of {len(results)} diagnostics, the others not applicable"
    return Reading("no sign of failure", (), sentence + (f"; noted: {', '.join(noted)}." if noted else "."), failed)

"""Why a number may be made up by a fault of model, attack or harness: counts of its cell, and notes on its model.

A count of images bounds by how much the number can be wrong. So what honest models show on a few images (a gradient
that float32 rounds to 0, an equilibrium that has not converged) is said, and marks the number from a hundredth of the
images on; what no honest model shows marks it at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from bench.attacks.core.contract import TOLERANCE
from bench.attacks.core.gradient_watch import NOT_FINITE, ZERO
from bench.evaluation.input_space import space_of
from bench.evaluation.outcomes import Outcomes
from bench.registry import attack, protocol
from bench.settings.radii import show_eps
from bench.store.cells import Cell

SHARE = 0.01  # of the images, above which a count marks a number that a few would not
MARK = "‡"

# What a count counts; the sentence continues with the counts.
SENTENCES = {
    "not finite": "a gradient was not finite (NaN or infinite), from where no step is made",
    "zero": "the image stands, and every gradient there was 0 (sure logits, whose cross-entropy float32 rounds to 0, "
    "or a step function; apgd[loss=margin] or Square tells)",
    "unmoved": "no step moved the image, and it stands",
    "outside": "the judged image is outside the ball",
    "unconverged": "the judged image's equilibrium has not converged",
}
_AT_ONCE = ("not finite", "outside")


@dataclass(frozen=True)
class Doubt:
    """One reason.

    Attributes:
        kind: of a count, or of a note.
        sentence: what is the matter.
        count, n: on how many of how many images; None of a note, which concerns the model.
        marks: whether the number is unreliable for it.
    """

    kind: str
    sentence: str
    count: int | None = None
    n: int = 0
    marks: bool = True


def find_doubts(
    cell: Cell, outcomes: Outcomes, unconverged: int, notes: Sequence[Mapping[str, Any]], backwards: int
) -> tuple[Doubt, ...]:
    """Of one cell.

    Args:
        unconverged: images whose equilibrium has not converged.
        notes: of its manifest (`bench.evaluation.inspection.Note`).
        backwards: that the cell took; without any, notes on the gradient do not concern it.
    """
    found = [Doubt(note["kind"], note["sentence"]) for note in notes if backwards or not note["gradient"]]
    if not cell.certificate:
        counts = _counts(cell, outcomes) | {"unconverged": unconverged}
        n = len(outcomes["index"])
        found += [
            Doubt(kind, SENTENCES[kind], count, n, kind in _AT_ONCE or count > SHARE * n)
            for kind, count in counts.items()
            if count
        ]
    return tuple(found)


def _counts(cell: Cell, outcomes: Outcomes) -> dict[str, int]:
    met, linf = outcomes["gradient"], outcomes["linf"]
    stands = (outcomes["clean"] == outcomes["label"]) & ~outcomes["broken"]
    zero = stands & (met == ZERO)
    # An attack that judges its last iterate moves every image; others give the clean one back where they fail.
    last = cell.attack in attack and bool(attack[cell.attack].traits.ascent) and cell.eps > 0
    pixels = cell.protocol in protocol and space_of(protocol[cell.protocol]) == "pixel"
    return {
        "not finite": int(np.sum(met == NOT_FINITE)),
        "zero": int(np.sum(zero)),
        "unmoved": int(np.sum(stands & ~zero & (linf == 0))) if last else 0,
        "outside": int(np.sum(~(linf <= float(cell.eps) + 2 * TOLERANCE))) if pixels else 0,
    }


def why_unreliable(doubts: Sequence[Doubt]) -> str:
    """What marks a number, in one line; empty where it is reliable."""
    return "; ".join(_said(doubt) for doubt in doubts if doubt.marks)


def _said(doubt: Doubt) -> str:
    return doubt.sentence if doubt.count is None else f"{doubt.sentence}: {doubt.count} of {doubt.n} images"


def doubt_lines(found: Sequence[tuple[str, str, Mapping[Fraction, Sequence[Doubt]]]]) -> list[str]:
    """What is printed under a table: a line per model for each note, a line per attack for each count.

    Args:
        found: who (model and data set), attack, and doubts by radius.
    """
    counts: dict[tuple[str, str, str], list[tuple[Fraction, Doubt]]] = {}
    notes: dict[str, None] = {}
    for who, attacked, by_radius in found:
        for eps, doubts in by_radius.items():
            for doubt in doubts:
                if doubt.count is None:
                    notes.setdefault(f"{MARK} {who}: {doubt.sentence}.")
                else:
                    counts.setdefault((who, attacked, doubt.sentence), []).append((eps, doubt))
    lines = list(notes)
    for (who, attacked, sentence), at in counts.items():
        where = ", ".join(f"{doubt.count} of {doubt.n} at {show_eps(eps)}" for eps, doubt in at)
        mark = f"{MARK} " if any(doubt.marks for _, doubt in at) else ""
        lines.append(f"{mark}{who}, {attacked}: {sentence}: {where}.")
    return lines

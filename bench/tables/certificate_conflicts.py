"""Certified ≤ robust, example by example: a certified image that an attack breaks is a bug, and is said to be one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.outcomes import Outcomes
from bench.settings.radii import show_eps
from bench.store.cells import Cell


def broken_certificates(found: Sequence[tuple[Cell, Outcomes]]) -> list[str]:
    """A sentence per pair of cells that contradict each other, none where certificates hold.

    Args:
        found: cells of one model, attacks and certificates, with their outcomes on the same first examples. An
            attack within a smaller radius is inside the ball that a certificate covers, and so is the clean image.
    """
    proofs = [(cell, outcomes) for cell, outcomes in found if cell.certificate]
    attacks = [(cell, outcomes) for cell, outcomes in found if not cell.certificate]
    sentences = []
    for proof, proven in proofs:
        wrong = proven["certified"] & (proven["clean"] != proven["label"])
        sentences += _sentence(proof, wrong, "it misclassifies", proven)
        for cell, outcomes in attacks:
            if cell.eps <= proof.eps:
                broken = proven["certified"] & (outcomes["adversarial"] != outcomes["label"])
                sentences += _sentence(proof, broken, f"{cell.attack_label} at {show_eps(cell.eps)} breaks", proven)
    return sentences


def _sentence(proof: Cell, rows: NDArray[Any], who: str, proven: Outcomes) -> list[str]:
    if not rows.any():
        return []
    first = int(proven["index"][int(np.argmax(rows))])
    return [
        f"BUG: the {proof.attack_label} of {proof.source.label} at {show_eps(proof.eps)} is wrong: {who} "
        f"{int(rows.sum())} of {len(rows)} images although they are certified (first: test image {first})."
    ]

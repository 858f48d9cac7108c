"""The worst case of a model at a radius: what no attack in the store breaks, whatever its protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bench.evaluation.input_space import space_of
from bench.registry import attack, protocol
from bench.statistics import Share
from bench.store.cells import Cell
from bench.store.stored_cells import StoredCell
from bench.system.canonical import canonical
from bench.tables.table_lines import robust_right

# Protocols strong enough to speak of a worst case, once one of them has run unreduced at the radius.
STRONG = ("adaptive", "standard")


@dataclass(frozen=True)
class WorstCase:
    """The share of images that no cell breaks, and the cells it is made of."""

    share: Share
    cells: tuple[StoredCell, ...]


def worst_cases(cell: Cell, stored: Sequence[StoredCell], examples: int) -> dict[Fraction, WorstCase]:
    """Per radius the images of one model that no attack breaks at this radius or a smaller one.

    An image broken in a small ball is broken in every larger one. A radius without an unreduced attack of a strong
    protocol has none: the least of weak numbers is no worst case.

    Args:
        cell: any of the model's; the others that count share its model, data, device and attack seed.
        stored: of any model, controls and certificates among them, which do not count.
        examples: the first n test images, cells with fewer do not count; 0: those that all counted cells hold, which
            can be fewer at a larger radius.
    """
    here = _place(cell)
    measures = [one for one in stored if is_measure(one.cell) and _place(one.cell) == here]
    measures = sorted((one for one in measures if one.cell.examples >= examples), key=lambda one: one.cell.eps)
    found = {}
    for eps in dict.fromkeys(one.cell.eps for one in measures if unreduced(one.cell)):
        inside = tuple(one for one in measures if one.cell.eps <= eps)
        n = examples or min(one.cell.examples for one in inside)
        standing = np.logical_and.reduce([robust_right(one.outcomes)[:n] for one in inside])
        found[eps] = WorstCase(Share(int(standing.sum()), n), inside)
    return found


def is_measure(cell: Cell) -> bool:
    """Whether it attacks pixels: neither a control, nor a certificate, nor of a protocol that is not loaded."""
    return not cell.certificate and cell.protocol in protocol and space_of(protocol[cell.protocol]) == "pixel"


def unreduced(cell: Cell) -> bool:
    """Whether it is an attack of a strong protocol, with exactly the options of that protocol at its radius, by
    whichever engine."""
    if cell.protocol not in STRONG:
        return False
    planned = protocol[cell.protocol].target(cell.eps)
    if cell.attack not in planned:
        return False
    entry = attack[cell.attack]
    wanted = entry.traits.strength(entry.resolve(planned[cell.attack]))
    return canonical(wanted) == canonical(entry.traits.strength(cell.attack_options))


def _place(cell: Cell) -> str:
    """Model, data, device and attack seed. Not the batches: their size makes no other model."""
    return canonical([cell.identity.place(), cell.seed])

"""Protocols: which attacks, with which budget at which radius, and in which input space."""

from fractions import Fraction
from typing import Any

from attacks.gradient_sign import eq14_steps
from bench.registry import protocol

# Attack name to the options the protocol fixes.
Plan = dict[str, dict[str, Any]]


@protocol("paper")
def paper(eps: Fraction) -> Plan:
    """The paper's Section 5.2.2: I-FGSM and PGD in pixel space, α = 1/255, steps by Eq. 14."""
    steps = eq14_steps(eps)
    return {
        "ifgsm": {"steps": steps, "alpha": 1 / 255},
        "pgd": {"steps": steps, "alpha": 1 / 255, "random_start": True},
    }

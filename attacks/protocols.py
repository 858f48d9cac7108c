"""Protocols: which attacks, with which budget at which radius, and in which input space."""

from fractions import Fraction
from typing import Any

from bench.attacks.gradient_sign import eq14_steps
from bench.registry import protocol

# Attack name to the options the protocol fixes.
Plan = dict[str, dict[str, Any]]

# A protocol's trait `space` says what is attacked: "pixel", the model, if it has none; "normalised", the model's
# body on normalised tensors.


@protocol("paper")
def paper(eps: Fraction) -> Plan:
    """The paper's Section 5.2.2: I-FGSM and PGD in pixel space, α = 1/255, steps by Eq. 14."""
    steps = eq14_steps(eps)
    return {
        "ifgsm": {"steps": steps, "alpha": 1 / 255},
        "pgd": {"steps": steps, "alpha": 1 / 255, "random_start": True},
    }


@protocol("paper-normalized", space="normalised")
def paper_normalized(eps: Fraction) -> Plan:
    """A control, no measure of robustness: the loops of `paper` on normalised tensors, clamped to [0, 1] there."""
    return paper(eps)


@protocol("standard")
def standard(eps: Fraction) -> Plan:
    """AutoAttack as RobustBench runs it: APGD-CE, APGD-T, FAB-T and Square, with their own budgets."""
    return {"autoattack": {"attacks": "apgd-ce+apgd-t+fab-t+square", "iterations": 100, "targets": 9, "queries": 5000}}


@protocol("adaptive")
def adaptive(eps: Fraction) -> Plan:
    """The worst case: every search of `adaptive`, each radius going on from the next smaller one."""
    return {"adaptive": {}}

"""An attack has one label, whether it is planned or found in the store."""

from fractions import Fraction

import pytest

from bench.execution.plan import plan_attacks
from bench.store.stored_cells import attack_label

EPS = [Fraction(2, 255), Fraction(8, 255)]


@pytest.mark.parametrize(
    ("text", "at_8", "at_both"),
    [
        ("pgd", "PGD", "PGD"),
        ("pgd[steps=10]", "PGD", "PGD[steps=10]"),
        ("pgd[steps=20]", "PGD[steps=20]", "PGD[steps=20]"),
        ("pgd[steps=20,alpha=0.01]", "PGD[alpha=0.01,steps=20]", "PGD[alpha=0.01,steps=20]"),
    ],
)
def test_planned_and_stored_attacks_are_labelled_by_one_rule(text: str, at_8: str, at_both: str) -> None:
    (alone,) = plan_attacks("paper", [text], EPS[1:])
    assert alone.label == at_8 == attack_label("paper", "pgd", {alone.eps: alone.options})
    assert {plan.label for plan in plan_attacks("paper", [text], EPS)} == {at_both}


def test_an_attack_named_twice_is_planned_once() -> None:
    assert [plan.label for plan in plan_attacks("paper", ["pgd", "pgd[steps=10]"], EPS[1:])] == ["PGD"]
    labels = [plan.label for plan in plan_attacks("paper", ["pgd", "pgd[steps=10]"], EPS)]
    assert labels == ["PGD", "PGD[steps=10]"] * 2

"""Wilson intervals and McNemar's test against what defines them, and the table's arithmetic."""

import io
import itertools
import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import Z95, Share, mcnemar, wilson
from bench.tables.table import render
from bench.tables.table_lines import Line

EPS = [Fraction(2, 255), Fraction(8, 255)]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(case: tuple[int, int]) -> None:
    """The ends are where the score test just rejects: (p − q)² = z² q(1 − q)/n."""
    hits, n = case
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    for q in (low, high):
        if 1e-9 < q < 1 - 1e-9 and abs(q - hits / n) > 1e-12:
            assert (hits / n - q) ** 2 == pytest.approx(Z95**2 * q * (1 - q) / n, rel=1e-6)


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10)


@given(pairs)
def test_mcnemar_is_the_permutation_test(pairs: list[tuple[bool, bool]]) -> None:
    """Swapping the two models on any subset of examples is as likely as not, if they are alike."""
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    observed = abs(int(a.sum()) - int(b.sum()))
    extreme = 0
    for swaps in itertools.product([False, True], repeat=len(a)):
        first, second = np.where(swaps, b, a), np.where(swaps, a, b)
        extreme += abs(int(first.sum()) - int(second.sum())) >= observed
    assert mcnemar(a, b) == pytest.approx(extreme / 2 ** len(a), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_mcnemar_knows_neither_order_nor_side_nor_agreement(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    p = mcnemar(a, b)
    assert 0 < p <= 1 and p == mcnemar(b, a)
    order = np.random.default_rng(len(a)).permutation(len(a))
    assert p == mcnemar(a[order], b[order]) == mcnemar(~a, ~b)
    agreeing = np.ones(50, bool)
    assert p == mcnemar(np.append(a, agreeing), np.append(b, agreeing))


def test_mcnemar_on_figures_from_the_definition() -> None:
    """10 against 2 discordant examples: 2·(C(12,0) + C(12,1) + C(12,2))/2¹²."""
    a, b = np.array([True] * 10 + [False] * 2), np.array([False] * 10 + [True] * 2)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 12 + 66) / 4096)
    with pytest.raises(ValueError, match="same examples"):
        mcnemar(a, b[1:])


def lines() -> list[Line]:
    def line(model: str, first: int, second: int) -> Line:
        return Line("mnist", model, "PGD", Share(98, 100), {EPS[0]: Share(first, 100), EPS[1]: Share(second, 100)})

    return [
        line("deq", 90, 40),
        line("lyadeq", 85, 60),
        line("other", 10, 60),
        Line("mnist", "bad", failure="it broke"),
    ]


def test_best_second_and_gain() -> None:
    rows = [row.split("|") for row in render(lines(), EPS, "deq", "markdown").splitlines()]
    assert rows[0][5].strip() == "Attack" and rows[0][6].strip() == "ε = 2/255"
    deq, lyadeq, other, bad = rows[2:]
    assert deq[6].strip().startswith("**90.00**<br>[82.6, 94.5]")
    assert lyadeq[6].strip().startswith("<u>85.00 (-5.00)</u>")
    assert other[6].strip().startswith("10.00 (-80.00)<br>")
    assert all(row[7].strip().startswith("**60.00 (+20.00)**") for row in (lyadeq, other))  # a tie: both are best
    assert deq[7].strip().startswith("<u>40.00</u>")
    assert bad[2].strip() == "bad" and bad[3].strip() == "failed"


def test_csv_and_json_hold_every_number() -> None:
    frame = pd.read_csv(io.StringIO(render(lines(), EPS, "deq", "csv")))
    assert len(frame) == 10
    best = frame[(frame.model == "lyadeq") & (frame.eps == "8/255")].iloc[0]
    assert (best.accuracy, best.n) == (60.0, 100) and best.low < 60 < best.high
    assert frame.failure.dropna().tolist() == ["it broke"]
    records = json.loads(render(lines(), EPS, "deq", "json"))
    assert len(records) == 10 and records[0]["eps"] == "0"


def test_latex_is_booktabs() -> None:
    text = render(lines(), EPS, "deq", "latex")
    assert text.count(r"\\") == 1 + 4 and r"\toprule" in text and text.count("&") == 7 * 5
    assert r"\textbf{90.00}" in text and r"\underline{85.00 (-5.00)}" in text


def test_a_cell_the_store_lacks_is_visibly_missing() -> None:
    line = Line("mnist", "deq", "PGD", Share(9, 10), {EPS[0]: Share(5, 10)})
    assert "—" in render([line], EPS, "deq", "terminal")

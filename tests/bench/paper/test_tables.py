"""The paper's tables as data: complete, in range, and what the paper's text says."""

from collections import Counter
from fractions import Fraction

import pytest

from bench.paper.load import ATTACKS, EPOCHS, TABLES, Printed, footnotes, inconsistencies, printed_cells
from bench.registry import attack, dataset, model, recipe
from bench.settings.radii import parse_eps, show_eps
from bench.settings.specs import parse_model
from tests.bench.paper.printed import TEXT, read_tables

SAMPLE = [
    # copied from the printed tables, by hand
    (1, "mnist", "DEQ", "", "0", 96.99),
    (1, "mnist", "IBP-MonDEQ", "PGD", "8/255", 94.57),
    (1, "mnist", "LyaDEQ w/ orthog. FC", "I-FGSM", "6/255", 50.55),
    (1, "svhn", "LyaDEQ wo/ orthog. FC", "I-FGSM", "4/255", 72.08),
    (1, "svhn", "DEQ w/ orthog. FC", "", "0", 95.63),
    (1, "cifar10", "LyaDEQ w/ orthog. FC", "PGD", "8/255", 43.96),
    (1, "cifar10", "DEQ", "PGD", "8/255", 11.12),
    (1, "cifar100", "IBP-MonDEQ", "I-FGSM", "2/255", 9.15),
    (1, "cifar100", "LyaDEQ w/ orthog. FC", "PGD", "8/255", 19.55),
    (2, "cifar10", "LyaDEQ +TRADES", "I-FGSM", "8/255", 72.42),
    (2, "cifar10", "LyaDEQ +Robust dataset", "PGD", "6/255", 51.54),
    (2, "cifar10", "LyaDEQ +PGD-AT", "PGD", "4/255", 60.42),
    (3, "cifar10", "ResNet56", "PGD", "8/255", 36.58),
    (3, "cifar10", "VGG16 +TRADES", "I-FGSM", "2/255", 77.38),
    (3, "cifar10", "WideResNet", "I-FGSM", "4/255", 46.05),
    (3, "cifar10", "WideResNet +TRADES", "PGD", "2/255", 82.84),
]


def cells() -> list[Printed]:
    return [cell for table in TABLES for cell in printed_cells(table)]


def test_every_cell_is_there_once() -> None:
    counts = Counter((cell.table, bool(cell.attack)) for cell in cells())
    assert counts == {(1, True): 160, (1, False): 20, (2, True): 32, (3, True): 48}
    places = {(c.table, c.dataset, c.row, c.attack, c.eps) for c in cells()}
    assert len(places) == len(cells())
    assert {cell.eps for cell in cells() if cell.attack} == {Fraction(n, 255) for n in (2, 4, 6, 8)}
    assert all(cell.eps == 0 for cell in cells() if not cell.attack)


def test_values_are_accuracies() -> None:
    assert all(3.10 <= cell.value <= 99.29 for cell in cells())
    clean = {(c.dataset, c.row): c.value for c in cells() if c.table == 1 and not c.attack}
    assert all(c.value < clean[c.dataset, c.row] for c in cells() if c.table == 1 and c.attack)


def test_a_sample_by_hand() -> None:
    values = {(c.table, c.dataset, c.row, c.attack, show_eps(c.eps)): c.value for c in cells()}
    for table, data, row, name, eps, value in SAMPLE:
        place = (table, data, row, name, show_eps(parse_eps(eps)))
        assert values[place] == value, place


def test_every_row_has_a_model_an_attack_and_a_data_set() -> None:
    for cell in cells():
        spec = parse_model(cell.model)
        assert spec.architecture.name in model and not spec.architecture.options
        assert not spec.recipe or spec.recipe.name in recipe
        assert cell.dataset in dataset and cell.dataset in EPOCHS
        assert not cell.attack or attack[ATTACKS[cell.attack]].label == cell.attack


def test_gains_are_differences_but_for_one() -> None:
    """What stands in parentheses is against DEQ in Table 1, against LyaDEQ in Table 2."""
    values = {(c.table, c.dataset, c.row, c.attack, c.eps): c.value for c in cells()}
    off = []
    for c in cells():
        if c.gain is not None:
            base = values[c.table, c.dataset, "DEQ" if c.table == 1 else "LyaDEQ", c.attack, c.eps]
            if round(c.value - base, 2) != c.gain:
                off.append((c.row, c.attack, show_eps(c.eps), c.gain))
    assert off == [("LyaDEQ +TRADES", "I-FGSM", "2/255", 25.42)]


def test_best_marks_are_the_maxima() -> None:
    for c in cells():
        if c.mark == "best":
            rivals = [
                r for r in cells() if (r.table, r.dataset, r.attack, r.eps) == (c.table, c.dataset, c.attack, c.eps)
            ]
            assert c.value == max(r.value for r in rivals)


def test_inconsistencies_are_recomputed_from_the_cells() -> None:
    found = {entry.name: (entry.stated, entry.computed) for entry in inconsistencies()}
    assert found == {
        "cifar10-gain": (32.48, 32.84),
        "orthogonal-layer-loss": (20, 27.60),
        "orthogonal-layer-alone": (None, -20.26),
        "accuracy-rises-with-radius": (None, 0.19),
        "trades-gain": (25.42, 25.43),
        "trades-two-attacks": (None, 24.33),
        "wide-resnet-at-4": (None, 1.26),
    }
    for entry in inconsistencies():
        assert f"{abs(entry.computed):.2f}" in entry.sentence, "the footnote names the computed number"
    assert len(footnotes(1)) == 4 and len(footnotes(2)) == 2 and len(footnotes(3)) == 1


def test_where_accuracy_rises_with_the_radius() -> None:
    """The four places of the footnote in Table 1, and one more in Table 2."""
    rising = Counter[tuple[int, str]]()
    for a in cells():
        for b in cells():
            same = (a.table, a.dataset, a.row, a.attack) == (b.table, b.dataset, b.row, b.attack)
            if same and a.attack and b.eps - a.eps == Fraction(2, 255) and b.value > a.value:
                rising[a.table, a.row] += 1
    assert rising == {(1, "LyaDEQ wo/ orthog. FC"): 4, (2, "LyaDEQ +Robust dataset"): 1}


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text is not beside this checkout (../shared/paper/paper.md)")
def test_all_of_it_is_what_the_text_prints() -> None:
    ours = [(c.table, c.dataset, c.row, c.attack, show_eps(c.eps), c.value, c.gain, c.mark) for c in cells()]
    printed = [(t, d, r, a, show_eps(parse_eps(e)), *rest) for t, d, r, a, e, *rest in read_tables()]
    assert ours == printed
    text = " ".join(TEXT.read_text(encoding="utf-8").split())
    assert all(entry.quote in text for entry in inconsistencies() if entry.quote)

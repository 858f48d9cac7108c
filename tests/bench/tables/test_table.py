"""Tables over training seeds and against a baseline: means, spreads, gains inside the noise, what is absent."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.statistics import Share
from bench.tables.numbers import gain, number, over_seeds
from bench.tables.table import budget_lines, render
from bench.tables.table_lines import Line
from tests.bench.helpers import Inside, last_line

EPS = Fraction(8, 255)
QUICK = ("--models", "fc-linear", "--eps", "8", "--epochs", "1", "--attacks", "ifgsm", "--examples", "50")


def line(model: str, right: str, seed: int | None = 0, attack: str = "PGD") -> Line:
    """A line from verdicts written as 1 and 0; clean is always right."""
    verdicts = np.array([sign == "1" for sign in right])
    n = len(verdicts)
    made = Line("mnist", model, attack, Share(n, n), {EPS: Share(int(verdicts.sum()), n)}, train_seed=seed)
    made.clean_right, made.right = np.ones(n, bool), {EPS: verdicts}
    return made


def rendered(*lines: Line, baseline: str = "deq") -> list[list[str]]:
    """The body of the Markdown table, cell by cell."""
    text = render(lines, [EPS], baseline, "markdown")
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:]]


def test_a_gain_inside_the_noise_says_so() -> None:
    base, same, better = "1" * 10 + "0" * 10, "0" + "1" * 11 + "0" * 8, "1" * 20
    rows = rendered(line("deq", base), line("near", same), line("far", better))
    assert rows[1][5].startswith("<u>55.00 (+5.00, n.s.)</u>")  # three differ, two to one: p = 1
    assert rows[2][5].startswith("**100.00 (+50.00)**")  # ten to none: p = 2/1024
    frame = pd.read_csv(io.StringIO(render([line("deq", base), line("far", better)], [EPS], "deq", "csv")))
    attacked = frame[(frame.eps == "8/255") & (frame.model == "far")].iloc[0]
    assert (attacked.gain, attacked.p_value, attacked.n, attacked.train_seed) == (
        50,
        pytest.approx(0.002, abs=1e-4),
        20,
        0,
    )
    assert frame[frame.model == "deq"].p_value.isna().all()


def test_without_the_baseline_there_is_no_gain() -> None:
    assert "(" not in rendered(line("a", "1100"), line("b", "1111"))[1][5]
    records = json.loads(render([line("a", "1100")], [EPS], "deq", "json"))
    assert all(record["gain"] is None and record["p_value"] is None for record in records)


def test_a_seed_that_the_baseline_lacks_leaves_no_gain() -> None:
    rows = rendered(line("deq", "1100", 0), line("a", "1111", 0), line("a", "0000", 1))
    assert "50.00" in rows[1][5] and "(" not in rows[1][5]


@pytest.mark.parametrize(
    ("scores", "marks"),
    [
        (("11", "11", "10"), ("**", "**", "<u>")),
        (("11", "11", "11"), ("**", "**", "**")),
        (("11", "10", "10"), ("**", "<u>", "<u>")),
        (("11", "10", "00"), ("**", "<u>", "0.00")),
        (("11",), ("100.00",)),
    ],
)
def test_equal_numbers_share_a_mark(scores: tuple[str, ...], marks: tuple[str, ...]) -> None:
    rows = rendered(*(line(f"m{i}", score) for i, score in enumerate(scores)))
    assert all(row[5].startswith(mark) for row, mark in zip(rows, marks, strict=True))


def test_several_seeds_are_one_line_with_mean_and_spread() -> None:
    lines = [line("deq", "1000", 0), line("deq", "1110", 1), line("deq", "1100", 2)]
    (row,) = rendered(*lines)
    assert row[3] == "4 × 3 seeds" and row[5] == "50.00<br>25.0–75.0"
    records = json.loads(render(lines, [EPS], "deq", "json"))
    assert [(r["train_seed"], r["accuracy"]) for r in records if r["eps"] == "8/255"] == [(0, 25), (1, 75), (2, 50)]
    assert budget_lines(lines).count("deq") == 1


def test_a_seed_that_is_not_there_is_not_hidden() -> None:
    absent = Line("mnist", "deq", failure="not in the store", train_seed=2)
    lines = [line("deq", "1100", 0), line("deq", "1110", 1), line("deq", "1110", 0, "FGSM"), absent]
    rows = rendered(*lines)
    assert rows[1][5].endswith("(1 of 2 seeds)") and rows[1][5].startswith("75.00")
    assert rows[2][1] == "deq (seed 2)" and rows[2][2] == "not in the store" and rows[2][5] == "—"


def test_gains_pair_equal_seeds_and_count_only_where_every_seed_agrees() -> None:
    low, high = "0" * 12, "1" * 12
    lines = [line("deq", low, 0), line("deq", high, 1), line("a", high, 0), line("a", low, 1)]
    first, second = (gain(x, EPS, lines, "deq") for x in lines[2:])
    assert first and second and (first.points, second.points) == (100, -100)
    assert first.p == second.p == pytest.approx(2 / 2**12)
    group = over_seeds(lines)[1]
    found = number(group, EPS, lines, "deq")
    assert found and found.gain and found.gain.points == 0 and found.gain.p == 1 and found.gain.noise
    # Weights that came with the model have no seed, and stand against every one.
    fixed = [line("deq", low, None), line("a", high, 0), line("a", high, 1)]
    joint = number(fixed[1:], EPS, fixed, "deq")
    assert joint and joint.gain and joint.gain.points == 100 and not joint.gain.noise


def test_seeds_through_the_program(tmp_path: Path, inside: Inside) -> None:
    out = inside(tmp_path, "run", *QUICK, "--seeds", "0,1,0").stdout
    assert "fc-linear (1 epoch)" in out and "50 × 2 seeds" in out and "train seeds 0, 1" in out
    assert "gain over" not in out, "there is no baseline row"
    assert len(list((tmp_path / "results/checkpoints/digits").glob("*.safetensors"))) == 2
    records = json.loads(inside(tmp_path, "table", *QUICK, "--seeds", "0,1", "--format", "json").stdout)
    attacked = {r["train_seed"]: r["accuracy"] for r in records if r["eps"] == "8/255"}
    alone = json.loads(inside(tmp_path, "table", *QUICK, "--train-seed", "1", "--format", "json").stdout)
    assert set(attacked) == {0, 1} and [r["accuracy"] for r in alone if r["eps"] == "8/255"] == [attacked[1]]
    assert records[0]["note"] == "1 epoch"
    more = inside(tmp_path, "table", *QUICK, "--seeds", "0,1", "--examples", "0").stdout
    assert "not in the store: of the first 250 images it is, --examples 250" in " ".join(more.split())
    partial = inside(tmp_path, "table", *QUICK, "--seeds", "1,2").stdout
    assert "fc-linear (1 epoch) (seed 2)" in partial and "not in the store" in partial and "failed" not in partial
    (tmp_path / "bench.toml").write_text("[run]\nseeds = [1, 0]\n[train.epochs]\ndigits = 1\n")
    usual = ("--models", "fc-linear", "--eps", "8", "--attacks", "ifgsm", "--examples", "50")
    from_file = inside(tmp_path, "table", *usual).stdout
    assert "50 × 2 seeds" in from_file and "epoch" not in from_file, "the usual epochs are not worth a word"
    assert "seeds" not in inside(tmp_path, "table", *usual, "--train-seed", "0").stdout


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (("--seeds", "0,1", "--train-seed", "0"), ("--seeds and --train-seed",)),
        (("--seeds", "0,x"), ("--seeds", "valid integer", "x")),
        (("--seeds", "0,-1"), ("--seeds", "greater than or equal to 0")),
    ],
)
def test_bad_seeds_are_one_line(
    options: tuple[str, ...], needles: tuple[str, ...], tmp_path: Path, inside: Inside
) -> None:
    said = last_line(inside(tmp_path, "run", *QUICK, *options, code=2))
    assert all(needle in said for needle in needles), said


def test_a_reduced_robust_data_set_is_in_the_label(tmp_path: Path, inside: Inside) -> None:
    model = "fc-linear+robust-dataset[source=fc-linear,images=60,steps=3]"
    out = inside(tmp_path, "run", *QUICK, "--models", model).stdout
    assert "(1 epoch, reduced: 60 of " in out and "3 of 1000 steps)" in out


def test_a_model_named_twice_is_one_row(inside: Inside, tmp_path: Path) -> None:
    shown = inside(tmp_path, "run", "--models", "fc-linear,fc-linear[]", *QUICK[2:]).stdout
    assert "seeds" not in shown.splitlines()[2] and shown.count("fc-linear (1 epoch)") == 2  # the table, the budget


def test_two_attacks_of_one_label_are_refused(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from bench.registry import attack\n\n"
        "@attack('mypgd', label='PGD')\ndef mypgd(model, x, y, eps, draws):\n    return x\n"
    )
    given = ["--models", "fc-linear", "--epochs", "1", "--attacks", "pgd,mypgd", "--plugin", "twice.py"]
    done = inside(tmp_path, "run", *given, code=2)
    assert "attacks 'pgd' and 'mypgd' are both labelled 'PGD'" in done.stderr


def test_lost_bookkeeping_is_made_again(inside: Inside, tmp_path: Path) -> None:
    first = inside(tmp_path, "run", *QUICK).stdout
    folder = next((tmp_path / "results/store/digits").glob("*/ifgsm@*"))
    (folder / "key.json").unlink()
    (folder / "manifest.json").write_text("{")
    assert inside(tmp_path, "run", *QUICK).stdout == first
    assert json.loads((folder / "key.json").read_text())["attack"]["name"] == "ifgsm"
    assert json.loads((folder / "manifest.json").read_text())["shards"] == 1


def test_the_hint_names_the_very_checkpoint_that_is_missing(inside: Inside, tmp_path: Path) -> None:
    inside(tmp_path, "train", "--models", "deq", "--epochs", "1")
    worst = ["run", "--models", "deq", "--epochs", "1", "--protocol", "adaptive", "--eps", "8", "--no-train"]
    done = inside(tmp_path, *worst, code=2)
    hint = "python -m bench train --models 'fc-linear+standard[epochs=1]' --dataset digits"
    assert hint in done.stderr
    inside(tmp_path, "train", "--models", "fc-linear+standard[epochs=1]", "--dataset", "digits")
    assert "no checkpoint" not in inside(tmp_path, *worst, "--dry-run").stderr

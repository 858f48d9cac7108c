"""`bench table 1|2|3` on a small store: what is filled, what is missing, and every format of it."""

import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from bench.tables.paper_layout import render_paper
from bench.tables.paper_rows import COLUMNS
from tests.bench.helpers import Inside, cell_folders, last_line
from tests.bench.tables.tiny_mnist import write_tiny_mnist

FORMATS = ("terminal", "markdown", "latex", "csv", "json")
PREAMBLE = r"\documentclass{article}\usepackage{booktabs}\begin{document}"


@pytest.fixture
def folder(tmp_path: Path, inside: Inside) -> Path:
    """Two checkpoints of deq, trained for 0 and for 2 epochs; PGD and I-FGSM of the second at two radii."""
    write_tiny_mnist(tmp_path / "data")
    inside(tmp_path, "train", "--models", "deq", "--dataset", "mnist", "--epochs", "0")
    run = ("--models", "deq", "--dataset", "mnist", "--epochs", "2", "--eps", "2,8", "--examples", "100")
    inside(tmp_path, "run", *run)
    return tmp_path


def frame_of(folder: Path, inside: Inside, *arguments: str) -> pd.DataFrame:
    out = inside(folder, "table", *arguments, "--format", "csv").stdout
    return pd.read_csv(io.StringIO(out), keep_default_na=False, na_values=[""], dtype={"key": str})


def test_what_the_store_holds_is_beside_the_printed_number(folder: Path, inside: Inside) -> None:
    frame = frame_of(folder, inside, "1", "--examples", "100")
    assert len(frame) == 180 and tuple(frame.columns) == COLUMNS
    filled = frame[frame.accuracy.notna()]
    assert set(zip(filled.dataset, filled.row, strict=True)) == {("mnist", "DEQ")}
    assert len(filled) == 5 and set(filled.n) == {100} and set(filled.training) == {"2 of 10 epochs"}
    assert (filled.difference - (filled.accuracy - filled.paper)).abs().max() < 1e-3
    assert ((filled.low <= filled.accuracy) & (filled.accuracy <= filled.high)).all()
    assert (filled.paper_in_interval == ((filled.low <= filled.paper) & (filled.paper <= filled.high))).all()
    ours = json.loads(
        inside(
            folder, "table", "--models", "deq", "--dataset", "mnist", "--epochs", "2", "--examples", "100",
            "--eps", "2,8", "--format", "json",
        ).stdout
    )  # fmt: skip
    matrix = {(r["attack"], r["eps"]): r["accuracy"] for r in ours if r["eps"] != "0"}
    robust = filled[filled.attack.notna()]
    table = {(r.attack, r.eps): r.accuracy for r in robust.itertuples()}
    assert table == pytest.approx(matrix, abs=1e-3)


def test_missing_cells_are_visible_and_their_command_fills_them(folder: Path, inside: Inside) -> None:
    command = ("table", "1", "--models", "deq", "--dataset", "mnist", "--examples", "100")
    before = inside(folder, *command).stdout
    assert before.count("— / ") == 4, "two radii under two attacks"
    assert re.search(r"DEQ on mnist: deq\+standard\[epochs=2\], 2 of 10 epochs, n = 100", before)
    wanted = [line for line in before.splitlines() if line.startswith("python -m bench ")]
    assert len(wanted) == 2 and wanted[0].startswith("python -m bench table 1 --run")
    words = shlex.split(wanted[1])[3:]
    assert words[:2] == ["run", "--models"] and words[words.index("--eps") + 1] == "4,6"
    inside(folder, *words)
    after = inside(folder, *command).stdout
    assert "— / " not in after and "To fill" not in after
    names = [cell.name for cell in cell_folders(folder / "results/store")]
    assert len(names) == len(set(names)) == 8, "under one name or the other, every cell lies there once"


def test_run_fills_them_too(folder: Path, inside: Inside) -> None:
    command = ("table", "1", "--models", "deq", "--dataset", "mnist", "--examples", "100", "--run")
    assert "— / " not in inside(folder, *command).stdout
    assert not (folder / "results/checkpoints/svhn").exists()


def test_without_examples_as_many_as_there_are(folder: Path, inside: Inside) -> None:
    """The shard of the first 100 images holds 250."""
    frame = frame_of(folder, inside, "1", "--models", "deq", "--dataset", "mnist")
    assert set(frame.n.dropna()) == {250}


def test_every_format_of_every_table(folder: Path, inside: Inside) -> None:
    for number, cells in (("1", 180), ("2", 32), ("3", 48)):
        texts = {form: inside(folder, "table", number, "--format", form).stdout for form in FORMATS}
        assert len(json.loads(texts["json"])) == cells
        assert len(pd.read_csv(io.StringIO(texts["csv"]))) == cells
        assert texts["terminal"].count(" / ") >= cells
        assert "Where the paper disagrees with itself" in texts["terminal"]
        check_markdown(texts["markdown"], rows=40 if number == "1" else 8)
        check_latex(texts["latex"], folder / f"table{number}")


def check_markdown(text: str, rows: int) -> None:
    html = MarkdownIt().enable("table").render(text)
    assert html.count("<table>") == 1 and html.count("<tr>") == rows + 1
    columns = html.count("<th")
    assert html.count("<td") == rows * (columns - html.count("<thead")), "no cell fell out of the grid"
    assert "<code" in html and "python -m bench table" in html


def check_latex(text: str, folder: Path) -> None:
    """It compiles, where there is a LaTeX to compile it; everywhere, rows and braces are whole."""
    grid = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in grid.splitlines() if line.endswith(r" \\")]
    assert len({row.count(" & ") for row in rows}) == 1 and rows
    assert text.replace(r"\{", "").replace(r"\}", "").count("{") == text.replace(r"\{", "").replace(r"\}", "").count(
        "}"
    )
    assert text.isascii()
    engine = shutil.which("tectonic") or shutil.which("pdflatex")
    if engine:
        folder.mkdir()
        (folder / "table.tex").write_text(PREAMBLE + "\n" + text + "\n" + r"\end{document}" + "\n")
        flags = [] if engine.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
        done = subprocess.run([engine, *flags, "table.tex"], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]


def test_hostile_names_stay_text() -> None:
    hostile = "a_b & 50% #1 {x} ~^\\ | <b> [2]"
    record = dict.fromkeys(COLUMNS) | {
        **{"table": 2, "dataset": "cifar10", "row": hostile, "attack": "PGD", "eps": "2/255", "paper": 50.0},
        **{"model": hostile, "training": "", "accuracy": 60.0, "low": 50.0, "high": 70.0, "n": 10, "hits": 6},
        **{"difference": 10.0, "paper_in_interval": False},
    }
    frame = pd.DataFrame([record])
    latex = render_paper(frame, "latex")
    assert r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} | $<$b$>$ {[}2{]}" in latex
    html = MarkdownIt().enable("table").render(render_paper(frame, "markdown"))
    assert "&lt;b&gt;" in html and html.count("<th") == 3 + 1  # three columns and <thead>


def test_without_the_data_set_it_does_not_say_that_there_is_no_checkpoint(folder: Path, inside: Inside) -> None:
    done = inside(folder, "table", "1", "--data-dir", "elsewhere", code=2)
    assert "mnist: the data set is not there" in done.stdout and "no checkpoint on mnist" not in done.stdout
    assert "--dataset mnist" not in done.stdout and "could not be downloaded" in last_line(done)


def test_bad_requests_are_one_line(tmp_path: Path, inside: Inside) -> None:
    assert "has the paper's attacks and radii" in last_line(inside(tmp_path, "table", "1", "--eps", "2", code=2))
    assert "fills a table of the paper" in last_line(inside(tmp_path, "table", "--run", code=2))
    assert "nothing is left" in last_line(inside(tmp_path, "table", "2", "--dataset", "mnist", code=2))
    assert "need I-FGSM and PGD" in last_line(inside(tmp_path, "table", "1", "--protocol", "standard", code=2))

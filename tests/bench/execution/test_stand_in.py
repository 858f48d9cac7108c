"""A model whose own checkpoint is not there is the one that its recipe trained longest, and says so."""

import json
from pathlib import Path

from tests.bench.helpers import Inside

RUN = ["--models", "fc-linear", "--eps", "8", "--attacks", "ifgsm", "--examples", "50"]


def test_run_takes_what_was_trained_and_says_for_how_long(inside: Inside, tmp_path: Path) -> None:
    weights = tmp_path / "results/checkpoints/digits"
    inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "1")
    inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "2")
    shown = inside(tmp_path, "run", *RUN).stdout
    assert "fc-linear (2 of 100 epochs)" in shown and len(list(weights.glob("*.safetensors"))) == 2
    records = json.loads(inside(tmp_path, "table", *RUN, "--format", "json").stdout)
    assert {record["note"] for record in records} == {"2 of 100 epochs"}
    # Named, it is that one and no other; and what is named but missing is trained.
    assert "fc-linear (1 epoch)" in inside(tmp_path, "run", *RUN, "--epochs", "1").stdout
    named = ["run", "--models", "fc-linear+standard[epochs=3]", *RUN[2:]]
    assert "training it now" in inside(tmp_path, *named).stderr and len(list(weights.glob("*.safetensors"))) == 3


def test_the_twin_of_a_defended_model_too(inside: Inside, tmp_path: Path) -> None:
    """A twin with the defaults takes as long to train as any model."""
    inside(tmp_path, "train", "--models", "fc-linear,deq+trades", "--epochs", "1")
    attack = ["--protocol", "adaptive", "--attacks", "adaptive[members=twin,iterations=2]", "--eps", "8"]
    shown = inside(tmp_path, "run", "--models", "deq+trades", *attack, "--examples", "50", "--no-train")
    assert "training it now" not in shown.stderr and "deq+trades (1 of 100 epochs)" in shown.stdout
    [key] = (tmp_path / "results/store").glob("digits/deq+trades*/adaptive@*/key.json")
    assert json.loads(key.read_text())["twin"]["architecture"] == "fc-linear"


def test_train_trains_what_is_named(inside: Inside, tmp_path: Path) -> None:
    inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "1")
    inside(tmp_path, "train", "--models", "fc-linear")
    weights = tmp_path / "results/checkpoints/digits"
    epochs = sorted(json.loads(card.read_text())["settings"]["epochs"] for card in weights.glob("*.json"))
    assert epochs == [1, 100]
    assert "epochs)" not in inside(tmp_path, "run", *RUN).stdout


def test_a_diagnosis_counts_whatever_the_model_was_called(inside: Inside, tmp_path: Path) -> None:
    inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "1")
    assert "not diagnosed" in inside(tmp_path, "run", *RUN).stdout
    inside(tmp_path, "diagnose", "--models", "fc-linear+standard[epochs=1]", *RUN[2:])
    assert "not diagnosed" not in inside(tmp_path, "table", *RUN).stdout

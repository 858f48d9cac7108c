"""No attack and no engine prints a number that a fault of the model made up, without a mark; honest ones have none."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.registry import attack
from tests.bench.helpers import bench

# Every registered attack, small: the faults do not hang on budgets.
SMALL = {
    "ifgsm": "ifgsm",
    "pgd": "pgd",
    "apgd": "apgd[steps=8]",
    "autoattack": "autoattack[iterations=5,targets=2,queries=20]",
    "autoattack by pyautoattack": "autoattack[iterations=5,targets=2,queries=20,engine=reference]",
    "margin": "margin[steps=5,patience=2,rounds=3]",
    "adaptive": "adaptive[iterations=4,targets=2,queries=20]",
    "torchattacks:MIFGSM": "torchattacks:MIFGSM",
    "torchattacks:PGD": "torchattacks:PGD[steps=5]",
    "torchattacks:APGD": "torchattacks:APGD[steps=5]",
}
FAULTS = {
    "nan": "not finite",
    "noise": "noise",
    "dropout": "noise",
    "numpy-noise": "noise",
    "seeded-noise": "noise",
    "softmax": "probabilities",
}
# Models that write into their input, and the same functions out of place.
IN_PLACE = {"in-place-normalise": "base", "in-place-round": "rounded", "in-place-clamp": "clamped"}
SAME = [
    *("parallel", "scripted", "traced", "compiled", "weight-norm", "weight-norm-old", "hook", "backward-hook"),
    *("views", "non-contiguous", "channels-last", "squeezed", "cloned", "checkpointed", "idle-dropout", "auxiliary"),
]
QUICK = ["ifgsm", "pgd", "apgd", "torchattacks:PGD"]

Numbers = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def numbers(folder: Path) -> Numbers:
    """Of every engine, model and attack's label; the honest wrappers under the quicker attacks."""
    ascents = [key for key in SMALL if attack[named(key)].traits.ascent]
    faulty = ["base", *FAULTS, *IN_PLACE, "rounded", "clamped"]
    found: Numbers = {}
    for engine, models, attacks in (
        ("packed", faulty, list(SMALL)),
        ("packed", ["base", *SAME], QUICK),
        ("reference", [*faulty, *SAME], ascents),
    ):
        chosen = ("--models", ",".join(models), "--attacks", ",".join(SMALL[key] for key in attacks))
        options = ("--plugin", "plugin.py", "--engine", engine, "--format", "json", "--epochs", "1")
        done = bench(folder, "run", *chosen, *options)
        for record in json.loads(done.stdout):
            if record["eps"] == "32/255":
                found[engine, record["model"], record["attack"]] = record
    return found


def named(key: str) -> str:
    """The registered attack of a case."""
    return key.split(" by ", maxsplit=1)[0]


def label(key: str) -> str:
    """As the table prints it."""
    name, _, options = SMALL[key].partition("[")
    shown = attack[name].label
    return f"{shown}[{','.join(sorted(options.rstrip(']').split(',')))}]" if options else shown


CASES = [(key, "packed") for key in SMALL] + [("ifgsm", "reference"), ("pgd", "reference")]


def test_every_registered_attack_is_here() -> None:
    assert {entry.name for entry in attack} <= set(SMALL)


@pytest.mark.parametrize(("key", "engine"), CASES)
@pytest.mark.parametrize("model", FAULTS)
def test_a_fault_marks_the_number(numbers: Numbers, model: str, key: str, engine: str) -> None:
    assert FAULTS[model] in (numbers[engine, model, label(key)]["unreliable"] or "")


@pytest.mark.parametrize(("key", "engine"), CASES)
@pytest.mark.parametrize("model", IN_PLACE)
def test_a_model_that_writes_into_its_input_has_the_numbers_of_its_function(
    numbers: Numbers, model: str, key: str, engine: str
) -> None:
    here, there = (numbers[engine, name, label(key)] for name in (model, IN_PLACE[model]))
    assert here["accuracy"] == there["accuracy"]
    assert here["unreliable"] is None


@pytest.mark.parametrize(("key", "engine"), [case for case in CASES if case[0] in QUICK])
@pytest.mark.parametrize("model", SAME)
def test_a_wrapper_that_changes_nothing_has_the_networks_numbers(
    numbers: Numbers, model: str, key: str, engine: str
) -> None:
    here, there = (numbers[engine, name, label(key)] for name in (model, "base"))
    assert here["accuracy"] == there["accuracy"] < 90
    assert here["unreliable"] is None

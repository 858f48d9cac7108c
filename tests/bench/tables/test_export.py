"""Export: RobustBench's fields, our numbers with n, interval and protocol, and no AutoAttack where there was none."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.tables import robustbench_export as model_info
from tests.bench.helpers import Inside, last_line

QUICK = ("--models", "fc-linear", "--epochs", "1", "--eps", "4,8")
FIELDS = {
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
}


def exported(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "model_info/digits/Linf").iterdir()}


def test_a_row_as_model_info(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "run", *QUICK, "--examples", "100")
    out = inside(tmp_path, "export", "robustbench", *QUICK, "--examples", "100").stdout
    assert "model_info/digits/Linf/fc-linear@8-255.json" in out
    infos = exported(tmp_path)
    assert set(infos) == {"fc-linear@4-255.json", "fc-linear@8-255.json"}
    info = infos["fc-linear@8-255.json"]
    assert info.keys() >= FIELDS
    assert (info["dataset"], info["architecture"], info["eps"]) == ("digits", "fc-linear", "8/255")
    assert info["autoattack_acc"] is None and info["reported"] is None and info["additional_data"] is False
    assert "Protocol 'paper' on the first 100 of 359 test images" in info["footnote"]
    ours = info["bench"]
    assert ours["protocol"] == "paper" and ours["clean"]["n"] == 100
    assert float(info["clean_acc"]) == pytest.approx(ours["clean"]["accuracy"])
    assert {entry["attack"] for entry in ours["robust"]} == {"ifgsm", "pgd"}
    for entry in ours["robust"]:
        low, high = entry["interval_95"]
        assert entry["n"] == 100 and low <= entry["accuracy"] <= high and len(entry["key"]) == 64


def test_only_autoattack_on_the_whole_test_set_is_called_so(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(tmp_path, "run", *QUICK)
    monkeypatch.setattr(model_info, "_is_autoattack", lambda cell: cell.attack == "pgd")
    inside(tmp_path, "export", "robustbench", *QUICK)
    whole = exported(tmp_path)["fc-linear@8-255.json"]
    (pgd,) = (entry for entry in whole["bench"]["robust"] if entry["attack"] == "pgd")
    assert float(whole["autoattack_acc"]) == pytest.approx(pgd["accuracy"]) and pgd["n"] == 359
    inside(tmp_path, "export", "robustbench", *QUICK, "--examples", "100")
    assert exported(tmp_path)["fc-linear@8-255.json"]["autoattack_acc"] is None


def test_every_training_seed_has_its_file(tmp_path: Path, inside: Inside) -> None:
    options = (*QUICK, "--examples", "50", "--eps", "8", "--attacks", "ifgsm", "--seeds", "0,1")
    inside(tmp_path, "run", *options)
    inside(tmp_path, "export", "robustbench", *options)
    infos = exported(tmp_path)
    assert set(infos) == {"fc-linear@8-255.json", "fc-linear-seed1@8-255.json"}
    assert [info["bench"]["train_seed"] for _, info in sorted(infos.items())] == [1, 0]


def test_what_the_store_lacks_is_told(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "run", *QUICK, "--examples", "100")
    options = (*QUICK, "--examples", "100", "--models", "fc-linear,deq")
    done = inside(tmp_path, "export", "robustbench", *options, code=2)
    assert "fc-linear@8-255.json" in done.stdout
    assert "deq on digits: not in the store; `bench run` it first" in last_line(done)

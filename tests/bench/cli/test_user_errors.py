"""Every mistake ends in one clear line and exit code 2, and nothing that was computed is lost."""

import errno
import json
import os
import stat
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from bench import __version__
from tests.bench.helpers import Done, Inside, last_line, store_content

QUICK = ("--models", "fc-linear", "--eps", "8", "--epochs", "1", "--attacks", "ifgsm")


def one_line(done: Done, *needles: str) -> None:
    line = last_line(done)
    for needle in needles:
        assert needle in line, line


@pytest.mark.parametrize(
    ("arguments", "needles"),
    [
        (("--models", "lyadek"), ("unknown model 'lyadek'", "did you mean 'lyadeq'", "there is ")),
        (("--models", "deq[tolerance=1]"), ("unknown option of model 'deq' 'tolerance'", "did you mean 'tol'")),
        (("--models", "deq[tol=small]"), ("tol='small'",)),
        (("--models", "deq+trade"), ("unknown recipe 'trade'", "did you mean 'trades'")),
        (("--eps", "2,x"), ("--eps: 'x' is not a number",)),
        (("--eps", "-1"), ("--eps: '-1' is outside 0 to 255",)),
        (("--eps", "300"), ("--eps: '300' is outside 0 to 255",)),
        (("--eps", ","), ("--eps: give at least one radius",)),
        (("--attacks", "pdg"), ("unknown attack 'pdg'", "did you mean 'pgd'")),
        (("--attacks", "torchattacks:PDG"), ("unknown attack of torchattacks 'PDG'",)),
        (("--attacks", "torchattacks:CW[q=1]"), ("unknown option of attack 'torchattacks:CW' 'q'",)),
        (("--protocol", "papre"), ("unknown protocol 'papre'", "did you mean 'paper'")),
        (("--dataset", "minst"), ("unknown data set 'minst'", "did you mean 'mnist'")),
        (("--device", "gpu"), ("--device", "'gpu'")),
        (("--examples", "-3"), ("--examples", "greater than or equal to 0")),
        (("--batch-size", "251"), ("--batch-size", "less than or equal to 250")),
        (("--config", "nowhere.toml"), ("there is no file nowhere.toml",)),
        (("--no-train",), ("no checkpoint of fc-linear on digits", "bench train")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...], needles: tuple[str, ...], tmp_path: Path, inside: Inside
) -> None:
    one_line(inside(tmp_path, "run", *QUICK, *arguments, code=2), *needles)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("content", "needles"),
    [
        ('[run]\nmodells = ["deq"]', ("[run]", "unknown key 'modells'", "did you mean 'models'")),
        ("[runs]\n", ("unknown key 'runs'", "did you mean 'run'")),
        ("[options.deq]\ntoll = 1", ("[options.deq]", "unknown key 'toll'", "did you mean 'tol'")),
        ('[run]\nseed = "x"', ("run.seed", "valid integer")),
        ("[run\n", ("is not valid TOML",)),
        ('[models.mine]\narch = "deqq"', ("unknown model 'deqq'", "did you mean 'deq'")),
    ],
)
def test_mistakes_in_bench_toml(content: str, needles: tuple[str, ...], tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bench.toml").write_text(content)
    model = "mine" if "mine" in content else "deq"
    one_line(inside(tmp_path, "run", *QUICK, "--models", model, code=2), *needles)


@pytest.mark.parametrize("option", ["--data-dir", "--store", "--checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_told_before_anything_is_computed(
    option: str, tmp_path: Path, inside: Inside
) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below"):
        one_line(inside(tmp_path, "run", *QUICK, option, path, code=2), f"{option} {path}: file is no folder", "name")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_folders_that_cannot_be_made(tmp_path: Path, inside: Inside) -> None:
    """Nobody can make one in /proc, not even root."""
    for option in ("--store", "--checkpoints"):
        one_line(inside(tmp_path, "run", *QUICK, option, "/proc/none", code=2), "cannot", "/proc/none")


def test_missing_data_without_network(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    done = inside(tmp_path, "run", *QUICK, "--dataset", "mnist", code=2)
    one_line(done, "data set 'mnist' is not in data", "put mnist.npz there")


def test_truncated_and_wrong_range_npz(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "mnist.npz"
    x, y = np.zeros((30, 1, 28, 28), np.uint8), np.arange(30) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    path.write_bytes(path.read_bytes()[:-400])
    one_line(inside(tmp_path, "run", *QUICK, "--dataset", "mnist", code=2), "mnist.npz is damaged")
    np.savez(path, x_train=x, y_train=y, x_test=x.astype(np.float32) - 0.5, y_test=y)
    one_line(inside(tmp_path, "run", *QUICK, "--dataset", "mnist", code=2), "x_test must be uint8", "float32")


def test_truncated_and_mismatching_checkpoints(tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "1")
    path = next(tmp_path.rglob("*.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    one_line(inside(tmp_path, "run", *QUICK, code=2), "is damaged", "train again")
    path.write_bytes(whole)
    save_file({f"other.{k}": v for k, v in load_file(path).items()}, path)
    one_line(inside(tmp_path, "run", *QUICK, code=2), "does not match the architecture", "missing", "unexpected")
    path.write_bytes(whole)
    inside(tmp_path, "run", *QUICK)


@pytest.mark.parametrize("content", ["{}", '{"weights": 3}', "[]", "no JSON"])
def test_a_card_that_says_nothing_is_one_line(content: str, tmp_path: Path, inside: Inside) -> None:
    inside(tmp_path, "train", "--models", "fc-linear,deq", "--epochs", "0")
    card = next(path for path in tmp_path.rglob("*.json") if path.name.startswith("fc-linear"))
    card.write_text(content)
    one_line(inside(tmp_path, "train", "--models", "fc-linear", "--epochs", "0", code=2), card.name, "delete it")
    listed = inside(tmp_path, "list", "models", code=2)
    one_line(listed, card.name, "delete it")
    assert "deq-seed0" in listed.stdout, "the others are listed"
    one_line(inside(tmp_path, "run", *QUICK, "--epochs", "0", code=2), card.name, "delete it")


def test_full_disk_loses_nothing(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    real, calls = pq.write_table, []

    def full(*arguments: object, **options: object) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **options)

    monkeypatch.setattr(pq, "write_table", full)
    done = inside(tmp_path, "run", *QUICK, code=2)
    one_line(done, "no space left", "the same command goes on")
    kept = store_content(tmp_path / "results/store")
    assert len(kept) == 1
    monkeypatch.setattr(pq, "write_table", real)
    inside(tmp_path, "run", *QUICK)
    after = store_content(tmp_path / "results/store")
    assert len(after) == 2 and kept.items() <= after.items()


def test_store_of_another_schema_is_refused(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "results/store").mkdir(parents=True)
    (tmp_path / "results/store/store.json").write_text(json.dumps({"schema": 99}))
    one_line(inside(tmp_path, "run", *QUICK, code=2), "has schema 99", "--store")


def test_debug_shows_the_traceback(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli import request

    monkeypatch.setattr(request, "debugging", False)
    done = inside(tmp_path, "run", "--models", "nope", "--debug", code=2)
    assert "Traceback" in done.stderr and "unknown model 'nope'" in done.stderr


RAISES_IN_FORWARD = """
from torch import nn
from bench.registry import model

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, x):
        raise ValueError("this forward never worked")

@model("broken")
def broken(images):
    '''A model that raises.'''
    return Broken()
"""


def test_plugin_that_raises_on_import_leaves_the_others_alone(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError('no such luck')\n")
    done = inside(tmp_path, "run", *QUICK, "--plugin", "bad.py", code=2)
    assert "bad.py failed to import: RuntimeError: no such luck" in done.stderr
    assert "fc-linear" in done.stdout and "I-FGSM" in done.stdout
    done = inside(tmp_path, "run", *QUICK, "--models", "theirs,fc-linear", "--plugin", "bad.py", code=2)
    assert "I-FGSM" in done.stdout and "failed" in done.stdout
    one_line(done, "unknown model 'theirs'", "no such luck")


def test_plugin_whose_forward_raises_fails_its_own_row(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "broken.py").write_text(RAISES_IN_FORWARD)
    done = inside(tmp_path, "run", *QUICK, "--models", "broken,fc-linear", "--plugin", "broken.py", code=2)
    one_line(done, "broken failed in training: ValueError: this forward never worked", "--debug shows where")
    assert "broken on digits: broken failed in training" in done.stdout and "I-FGSM" in done.stdout
    assert len(store_content(tmp_path / "results/store")) == 2


@pytest.mark.parametrize("failure", ["ValueError('no')", "SystemExit(7)"])
def test_debug_shows_where_a_plugin_failed_and_changes_nothing_else(
    failure: str, tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.cli import request

    monkeypatch.setattr(request, "debugging", False)
    (tmp_path / "fails.py").write_text(
        "from bench.registry import attack\n"
        "@attack('fails')\n"
        "def fails(model, x, y, eps, draws):\n"
        "    '''Fails.'''\n"
        f"    raise {failure}\n"
    )
    given = ("run", *QUICK, "--attacks", "fails,pgd", "--plugin", "fails.py")
    done = inside(tmp_path, *given, code=2)
    one_line(done, failure.split("(", maxsplit=1)[0], "--debug shows where")
    assert "PGD" in done.stdout
    again = inside(tmp_path, *given, "--debug", code=2)
    assert f"raise {failure}" in again.stderr and again.stdout == done.stdout.replace("; --debug shows where", "")


def test_a_device_is_not_replaced(tmp_path: Path, inside: Inside) -> None:
    os.mkfifo(tmp_path / "pipe")
    inside(tmp_path, "run", *QUICK)
    one_line(inside(tmp_path, "report", "--out", "pipe", code=2), "pipe", "no regular file", "name another")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_attack_that_leaves_the_ball_fails_its_row(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "far.py").write_text(
        "from bench.registry import attack\n"
        "@attack('far')\n"
        "def far(model, x, y, eps, draws):\n"
        "    '''Too far.'''\n"
        "    return (x + 2 * eps.view(-1, 1, 1, 1)).clamp(0, 1)\n"
    )
    done = inside(tmp_path, "run", *QUICK, "--attacks", "far,ifgsm", "--plugin", "far.py", code=2)
    one_line(done, "far left the ball", "project its result")


def test_check_explains_a_broken_contract(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "noisy.py").write_text(
        "import torch\nfrom torch import nn\nfrom bench.registry import model\n"
        "class Noisy(nn.Module):\n"
        "    def __init__(self, images):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(images.shape[1] * images.shape[2], images.classes)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1).round()) + torch.randn(1)\n"
        "@model('noisy')\n"
        "def noisy(images):\n"
        "    '''Noise, and rounding that cuts the gradient.'''\n"
        "    return Noisy(images)\n"
    )
    done = inside(tmp_path, "check", "noisy", "--plugin", "noisy.py", code=2)
    assert "FAIL  in eval mode it gives the same logits twice: logits moved by" in done.stdout
    assert "FAIL  its input gradient exists and is not zero: it is zero on" in done.stdout
    one_line(done, "noisy breaks", "points of its contract")


@pytest.mark.parametrize("name", ["deq", "lyadeq", "fc-linear", "ifgsm", "pgd", "digits", "torchattacks:MIFGSM"])
def test_builtins_keep_their_contract(name: str, tmp_path: Path, inside: Inside) -> None:
    assert "FAIL" not in inside(tmp_path, "check", name).stdout


def test_doctor_and_lists(tmp_path: Path, inside: Inside) -> None:
    assert "torchattacks" in inside(tmp_path, "doctor").stdout
    assert inside(tmp_path, "--version").stdout.strip() == __version__
    for kind, name in [
        ("models", "lyadeq-no-orth"),
        ("models", "robustbench:NAME"),
        ("attacks", "torchattacks:NAME"),
        ("datasets", "svhn"),
        ("protocols", "paper"),
        ("recipes", "standard"),
    ]:
        assert name in inside(tmp_path, "list", kind).stdout


def test_table_of_an_empty_store_says_so_and_computes_nothing(tmp_path: Path, inside: Inside) -> None:
    assert "not in the store" in inside(tmp_path, "table", *QUICK).stdout
    assert not list(tmp_path.rglob("*.parquet"))

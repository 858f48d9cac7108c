"""One part of a run cannot alter another's numbers, and what a key leaves out cannot matter."""

import re
from pathlib import Path

import numpy as np

from tests.bench.helpers import Inside, last_line, store_content

QUICK = ("--models", "fc-linear", "--eps", "8", "--epochs", "2")

POISON = """
import torch
from bench.registry import attack

@attack("poison")
def poison(model, x, y, eps, draws):
    '''Zeroes the weights it attacks.'''
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.zero_()
    return x

@attack("raises")
def raises(model, x, y, eps, draws):
    '''Fails.'''
    raise ValueError("not today")
"""


def pgd_outcomes(folder: Path) -> list[object]:
    return [content for name, content in store_content(folder / "results/store").items() if "/pgd@" in name]


def test_an_attack_that_alters_the_model_fails_and_poisons_nothing(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "poison.py").write_text(POISON)
    done = inside(tmp_path, "run", *QUICK, "--attacks", "poison,raises,pgd", "--plugin", "poison.py", code=2)
    assert "poison changed the model's weights" in last_line(done)
    assert "PGD" in done.stdout  # the row's other attack was computed all the same
    poisoned = pgd_outcomes(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    inside(alone, "run", *QUICK, "--attacks", "pgd")
    assert poisoned == pgd_outcomes(alone) and len(poisoned) == 2


def test_attacks_of_like_name_have_rows_of_their_own(tmp_path: Path, inside: Inside) -> None:
    done = inside(tmp_path, "run", *QUICK, "--attacks", "pgd,torchattacks:PGD")
    labels = re.findall(r"(?:torchattacks:)?PGD", done.stdout.split("Accuracy")[0])
    assert labels == ["PGD", "torchattacks:PGD"]


def test_what_a_data_set_declares_is_part_of_the_weights(tmp_path: Path, inside: Inside) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    x = (rng.integers(0, 40, (80, 1, 6, 6)) + 50 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    declarations = ("", "mean = [0.4]\nstd = [0.2]\n", "mean = [0.5]\nstd = [0.2]\n", "augment = true\n")
    for number, extra in enumerate(declarations, 1):
        (tmp_path / "bench.toml").write_text(f'[datasets.mine]\npath = "mine.npz"\n{extra}')
        inside(tmp_path, "run", *QUICK, "--dataset", "mine", "--attacks", "ifgsm")
        assert len(list(tmp_path.rglob("*.safetensors"))) == number


def test_a_factory_with_new_weights_each_time_is_refused(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "drifting.py").write_text(
        "import os, torch\nfrom torch import nn\nfrom bench.registry import model\n"
        "@model('drifting', pretrained=True)\n"
        "def drifting(images):\n"
        "    '''Other weights each time.'''\n"
        "    layer = nn.Linear(images.shape[1] * images.shape[2], images.classes)\n"
        "    layer.weight.data.fill_(float(os.urandom(1)[0] + 256 * os.urandom(1)[0]))\n"
        "    return nn.Sequential(nn.Flatten(), layer)\n"
    )
    done = inside(tmp_path, "run", *QUICK, "--models", "drifting,fc-linear", "--plugin", "drifting.py", code=2)
    assert "its factory gives other weights each time" in last_line(done)
    assert "fc-linear" in done.stdout


def test_a_pretrained_factory_that_raises_fails_its_own_row(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "missing.py").write_text(
        "from bench.registry import model\n"
        "@model('missing', pretrained=True)\n"
        "def missing(images):\n"
        "    '''Its weights are not there.'''\n"
        "    raise FileNotFoundError('weights.pth')\n"
    )
    done = inside(tmp_path, "run", *QUICK, "--models", "missing,fc-linear", "--plugin", "missing.py", code=2)
    assert "its factory failed, FileNotFoundError: weights.pth" in last_line(done)
    assert "I-FGSM" in done.stdout

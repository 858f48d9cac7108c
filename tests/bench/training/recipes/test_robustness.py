"""What adversarial training is for: it beats standard training under attack by more than chance."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.attacks.gradient_sign import pgd
from bench.data.load import Dataset
from bench.evaluation.batch import examples_of
from bench.evaluation.reference_engine import evaluate
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.statistics import Share
from bench.tables.table_lines import clean_share, robust_share
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model, train

EPS = 0.1  # at 8/255 the 8×8 digits of any model hardly change
EPOCHS = 20
RECIPES = {"trades": f"trades[eps={EPS},step=0.02]", "pgd-at": f"pgd-at[eps={EPS},step=0.02]"}


@pytest.fixture(scope="module")
def measure(digits: Dataset, config: Config, checkpoints: Path) -> Callable[[str], tuple[Share, Share]]:
    """A model by name to its accuracy on the test images, clean and under PGD-100."""
    known: dict[str, tuple[Share, Share]] = {}
    settings = config.train.model_copy(update={"threads": 1})

    def get(name: str) -> tuple[Share, Share]:
        if name not in known:
            job = make_job(parse_model(name), digits, config, seed=0, epochs=EPOCHS)
            net = build_model(job, digits)
            load_weights(train(job, digits, checkpoints, torch.device("cpu"), settings), net)
            n = len(digits.x_test)
            outcomes = evaluate(
                net,
                partial(pgd, steps=100, alpha=EPS / 10),
                examples_of(digits, range(n), seed=0),
                EPS,
                classes=digits.images.classes,
                batch_size=n,
            ).outcomes
            known[name] = clean_share(outcomes), robust_share(outcomes)
            print(name, *(f"{share.percent:.1f} {share.interval}" for share in known[name]))
        return known[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("architecture", ["resnet20", "deq", "deq-orth", "lyadeq-no-orth", "lyadeq"])
def test_adversarial_training_beats_standard_under_attack(
    architecture: str, recipe: str, measure: Callable[[str], tuple[Share, Share]]
) -> None:
    _, plain = measure(architecture)
    clean, robust = measure(f"{architecture}+{RECIPES[recipe]}")
    assert robust.interval[0] > plain.interval[1]
    assert clean.percent > 85

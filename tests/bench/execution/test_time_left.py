"""The ETA of a run: predictions corrected by what was seen."""

import random

import pytest
import torch
from torch import nn

from bench.data.load import Dataset
from bench.execution.speed_probe import pace
from bench.execution.time_left import Forecast
from bench.models.images import Classifier
from tests.conftest import Trained


def test_unseen_work_is_as_wrong_as_the_most_alike_that_was_seen() -> None:
    work = [(("pgd", "mnist", "a"), 10.0), (("pgd", "mnist", "b"), 10.0), (("aa", "mnist", "a"), 10.0)]
    forecast = Forecast(work * 2, workers=1)
    assert forecast.seconds() == 60
    forecast.saw(("pgd", "mnist", "a"), 10, 20)
    assert forecast.seconds() == 2 * 50, "everything is taken to be twice as slow"
    forecast.saw(("aa", "mnist", "a"), 10, 5)
    assert forecast.seconds() == pytest.approx(2 * 10 + 2 * 20 + 0.5 * 10), "pgd on b as pgd on a, aa as itself"
    forecast.saw(("pgd", "mnist", "b"), 10, None)
    assert forecast.seconds() == pytest.approx(2 * 10 + 2 * 10 + 0.5 * 10), "what was skipped says nothing"


@pytest.mark.parametrize("seed", range(5))
def test_after_a_tenth_it_is_right_within_a_factor_of_one_and_a_half(seed: int) -> None:
    """Made-up runs of models that are 0.3 to 3 times as slow as predicted, the attacks another factor, and noise."""
    draw = random.Random(seed)
    models, attacks = {m: draw.uniform(0.3, 3) for m in "abc"}, {"pgd": 1.0, "aa": draw.uniform(0.2, 0.6)}
    tasks = [(m, a, 1.0 if a == "pgd" else 20.0) for m in models for a in attacks for _ in range(20)]
    draw.shuffle(tasks)
    took = [p * models[m] * attacks[a] * draw.uniform(0.9, 1.1) for m, a, p in tasks]
    forecast = Forecast([((a, "mnist", m), p) for m, a, p in tasks], workers=2)
    for (m, a, p), seconds in list(zip(tasks, took, strict=True))[: len(tasks) // 10]:
        forecast.saw((a, "mnist", m), p, seconds)
    left = sum(took[len(tasks) // 10 :]) / 2
    assert left / 1.5 < forecast.seconds() < 1.5 * left


def test_rows_follow_the_rule_on_a_cpu(trained: Trained, digits: Dataset) -> None:
    assert pace(trained("deq"), digits, 250, ascents=8).rows == 2000
    assert pace(trained("deq"), digits, 100, ascents=0).rows == 100
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(10))
    net = Classifier(digits.images, convolution)
    with torch.no_grad():
        net(torch.zeros(1, 1, 8, 8))
    found = pace(net.eval(), digits, 250, ascents=8)
    assert found.rows == 250 and found.forward > 0 and found.gradient > 0

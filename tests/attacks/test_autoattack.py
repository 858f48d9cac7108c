"""AutoAttack: the adapter gives pyautoattack's own verdicts, our engine such as hardly differ from them."""

import logging
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from bench.attacks.autoattack import ATTACKS, autoattack
from bench.attacks.core.cascade import STANDING, bind
from bench.attacks.core.contract import ContractError, linf, run_attack
from bench.attacks.core.draws import Draws
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.evaluation.batch import examples_of
from bench.evaluation.outcomes import Outcomes
from bench.evaluation.reference_engine import evaluate
from bench.registry import attack
from tests.conftest import Trained

SHORT = {"iterations": 10, "targets": 3, "queries": 40}
REFERENCE = {**SHORT, "engine": "reference"}
ENGINES = ["compact", "reference"]


def through_the_harness(
    net: nn.Module, data: Dataset, n: int, eps: float, batch: int, options: dict[str, Any], seed: int = 0
) -> Outcomes:
    entry = attack["autoattack"]
    search = bind(entry, entry.resolve(options))
    return evaluate(net, search, examples_of(data, range(n), seed=seed), eps, classes=10, batch_size=batch).outcomes


def directly(net: nn.Module, data: Dataset, rows: range, eps: float, options: dict[str, Any]) -> Tensor:
    """pyautoattack by its own runner, with our seed and budgets: its adversarial images."""
    runner = AutoAttack(net, eps=eps, seed=Draws(0, data.test_hash, rows).batch_seed(), version="standard")
    steps = options.get("iterations", 100)
    for apgd in (runner.apgd, runner.apgd_targeted):
        apgd.n_iter, apgd.n_iter_2 = steps, max(int(0.22 * steps), 1)
        apgd.n_iter_min, apgd.size_decr = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    runner.fab.n_iter = steps
    runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = options.get("targets", 9)
    runner.square.n_queries = options.get("queries", 5000)
    x, y = as_pixels(data.x_test[rows.start : rows.stop]), data.y_test[rows.start : rows.stop]
    with torch.random.fork_rng(devices=[]):
        images: Tensor = runner.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return images


def assert_same_verdicts(net: nn.Module, data: Dataset, eps: float, batches: list[range], options: Any) -> Outcomes:
    found = through_the_harness(net, data, batches[-1].stop, eps, len(batches[0]), options)
    with torch.no_grad():
        peer = torch.cat([net(directly(net, data, rows, eps, options)).argmax(1) for rows in batches])
    assert np.array_equal(found["adversarial"], peer.numpy())
    return found


def test_verdicts_of_a_cnn_are_pyautoattacks(cnn: nn.Module, digits: Dataset) -> None:
    """Two batches of a shard, at a radius where some fall and some stand."""
    found = assert_same_verdicts(cnn, digits, 16 / 255, [range(30), range(30, 60)], REFERENCE)
    assert 10 < found["broken"].sum() < 50


def test_verdicts_of_a_deq_are_pyautoattacks(trained: Trained, digits: Dataset) -> None:
    found = assert_same_verdicts(trained("deq"), digits, 16 / 255, [range(20)], {**REFERENCE, "iterations": 5})
    assert 2 < found["broken"].sum() < 18


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "deq"])
def test_verdicts_at_the_standard_budget(name: str, cnn: nn.Module, trained: Trained, digits: Dataset) -> None:
    """The defaults are those of its version "standard", none of which this test sets."""
    net = cnn if name == "cnn" else trained(name)
    assert_same_verdicts(net, digits, 20 / 255, [range(60)], {"engine": "reference"})


def assert_engines_agree(
    net: nn.Module, data: Dataset, n: int, eps: float, options: dict[str, Any], least: float = 0.99
) -> None:
    ours, theirs = (
        through_the_harness(net, data, n, eps, n, {**options, "engine": engine})["broken"] for engine in ENGINES
    )
    assert 0.15 * n < theirs.sum() < 0.85 * n, "the radius tells nothing apart"
    assert np.mean(ours == theirs) >= least
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 0.005 * n


def test_engines_agree_on_a_cnn(cnn: nn.Module, digits: Dataset) -> None:
    assert_engines_agree(cnn, digits, 300, 12 / 255, {"iterations": 30, "targets": 3, "queries": 100})


def assert_engines_agree_like_seeds(net: nn.Module, data: Dataset, n: int, eps: float, options: dict[str, Any]) -> None:
    """Where random starts decide single images: the engines differ by no more images than two seeds of pyautoattack do,
    and half a per cent."""
    ours, theirs = (
        [through_the_harness(net, data, n, eps, n, {**options, "engine": engine}, seed)["broken"] for seed in (0, 1)]
        for engine in ENGINES
    )
    assert 0.15 * n < theirs[0].sum() < 0.85 * n, "the radius tells nothing apart"
    between = np.mean([np.sum(one != other) for one in ours for other in theirs])
    assert between <= np.sum(theirs[0] != theirs[1]) + 0.005 * n
    assert abs(np.mean([one.sum() for one in ours]) - np.mean([one.sum() for one in theirs])) <= 0.015 * n


def test_engines_agree_on_a_deq(trained: Trained, digits: Dataset) -> None:
    options = {"iterations": 20, "targets": 2, "queries": 50}
    assert_engines_agree_like_seeds(trained("deq"), digits, 200, 20 / 255, options)


@pytest.mark.slow
def test_engines_agree_at_the_standard_budget(trained: Trained, digits: Dataset) -> None:
    assert_engines_agree(trained("resnet20"), digits, 200, 20 / 255, {})


@pytest.mark.slow
def test_engines_agree_on_a_deq_at_the_standard_budget(trained: Trained, digits: Dataset) -> None:
    assert_engines_agree_like_seeds(trained("deq"), digits, 200, 20 / 255, {})


@pytest.mark.parametrize("stage", ATTACKS)
def test_every_stage_alone_is_as_strong(stage: str, cnn: nn.Module, digits: Dataset) -> None:
    """Short searches that start at random do not agree image by image; how many fall does."""
    options = {"attacks": stage, "iterations": 20, "targets": 3, "queries": 200}
    ours, theirs = (
        through_the_harness(cnn, digits, 300, 16 / 255, 300, {**options, "engine": engine})["broken"]
        for engine in ENGINES
    )
    assert 0.1 < theirs.mean() < 0.9 and abs(ours.mean() - theirs.mean()) <= 0.03


def test_targets_together_or_in_turn(cnn: nn.Module, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many classes share a batch changes no verdict."""
    found = []
    for images in (1, 250):
        monkeypatch.setattr("bench.attacks.autoattack.TOGETHER", images)
        options = {"iterations": 20, "targets": 9, "attacks": "apgd-t+fab-t"}
        found.append(through_the_harness(cnn, digits, 100, 12 / 255, 100, options))
    assert np.array_equal(found[0]["broken"], found[1]["broken"]) and found[0]["broken"].any()
    assert np.array_equal(found[0]["adversarial"], found[1]["adversarial"])


def assert_batches_agree(net: nn.Module, data: Dataset, n: int, eps: float, options: dict[str, Any]) -> None:
    whole, halves = (through_the_harness(net, data, n, eps, batch, options) for batch in (n, n // 2))
    assert np.mean(whole["broken"] == halves["broken"]) >= 0.99
    assert 0.1 * n < whole["broken"].sum() < 0.9 * n


@pytest.mark.parametrize("engine", ENGINES)
def test_other_batches_agree(engine: str, cnn: nn.Module, digits: Dataset) -> None:
    """pyautoattack's draws are the batch's; ours are each example's own."""
    options = {"iterations": 30, "targets": 3, "queries": 100, "engine": engine}
    assert_batches_agree(cnn, digits, 100, 12 / 255, options)


@pytest.mark.slow
def test_other_batches_of_a_deq_agree_at_the_standard_budget(trained: Trained, digits: Dataset) -> None:
    assert_batches_agree(trained("deq"), digits, 100, 20 / 255, {})


def test_broken_by_names_the_first_stage(cnn: nn.Module, digits: Dataset) -> None:
    together = through_the_harness(cnn, digits, 40, 16 / 255, 40, SHORT)
    alone = through_the_harness(cnn, digits, 40, 16 / 255, 40, {**SHORT, "attacks": "apgd-ce"})
    assert np.array_equal(together["broken_by"] == 0, alone["broken"])
    assert np.array_equal(together["broken_by"] != STANDING, together["broken"])
    assert together["broken_by"].dtype == np.int8
    reverse = through_the_harness(cnn, digits, 40, 16 / 255, 40, {**SHORT, "attacks": "square+apgd-ce"})
    assert (reverse["broken_by"] == 0).any() and (reverse["broken_by"] == 1).any()


def test_a_radius_per_example(cnn: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y, draws = images[0][:24], images[1][:24], Draws(0, "digits", range(24))
    eps = torch.tensor([0.0, 0.05, 0.1]).repeat(8)
    found = run_attack(autoattack_short, cnn, x, y, eps, draws)
    assert bool((linf(x, found) <= eps + 1e-6).all()) and torch.equal(found[::3], x[::3])
    assert 0 < int((linf(x, found) > 0).sum()) < 24


def autoattack_short(*arguments: Any, engine: str = "compact") -> Tensor:
    return autoattack(*arguments, **attack["autoattack"].resolve({**SHORT, "engine": engine}))


@pytest.mark.parametrize("engine", ENGINES)
def test_random_state_and_output_are_left_alone(
    engine: str,
    cnn: nn.Module,
    images: tuple[Tensor, Tensor],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where pyautoattack would warn: a model without gradients."""

    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return cnn(x.detach()) + 0 * x.sum()

    x, y = images[0][:8], images[1][:8]
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    search = partial(autoattack_short, engine=engine)
    run_attack(search, Deaf(), x, y, torch.full((8,), 0.05), Draws(0, "digits", range(8)))
    assert torch.equal(torch.rand(1), expected)
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert logging.getLogger("auto-attack").level == logging.NOTSET


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes: int, engine: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()
    x, eps, draws = torch.rand(6, 1, 4, 4), torch.full((6,), 0.9), Draws(0, "x", range(6))
    with torch.no_grad():
        y = net(x).argmax(1)
    with pytest.raises(ContractError, match=rf"{classes} classes: leave it out with autoattack\[attacks=apgd-ce\+fab"):
        run_attack(partial(autoattack_short, engine=engine), net, x, y, eps, draws)
    options = {**SHORT, "engine": engine, "attacks": "apgd-ce+fab-t+square"}
    without = bind(attack["autoattack"], attack["autoattack"].resolve(options))
    assert not torch.equal(run_attack(without, net, x, y, eps, draws), x)


@pytest.mark.parametrize(
    "options", [{"attacks": "apgd"}, {"attacks": "square+square"}, {"queries": "0"}, {"engine": "fast"}]
)
def test_bad_options_are_told(options: dict[str, str]) -> None:
    with pytest.raises(BenchError, match=r"attack 'autoattack': .*(join by|at least 1|'compact' or 'reference')"):
        attack["autoattack"].resolve(options)


def test_the_key_holds_pyautoattacks_version() -> None:
    assert attack["autoattack"].implementation() == "3-pyautoattack-0.2.0"


class Misled(nn.Module):
    """Its folded form calls everything broken; only itself may say so."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def folded(self, x: Tensor) -> nn.Module:
        self.asked += 1
        return nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10))


def test_what_the_folded_model_finds_is_judged_by_the_model(cnn: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    net, entry = Misled(cnn), attack["autoattack"]
    x, y = images[0][:40], images[1][:40]
    eps, draws = torch.full((40,), 0.02), Draws(0, "folded", range(40))
    standing = cnn(x).argmax(1) == y
    found = bind(entry, entry.resolve({**SHORT, "attacks": "apgd-ce"}))(net, x, y, eps, draws)
    assert net.asked == 1 and bool(standing.any())
    assert torch.equal(found[standing & (cnn(found).argmax(1) == y)], x[standing & (cnn(found).argmax(1) == y)])
    bind(entry, entry.resolve(REFERENCE))(net, x, y, eps, draws)
    assert net.asked == 1, "pyautoattack has the model itself"

"""Interval training: its ramp, its rate, its defaults, and that it lowers what it minimises."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from bench.data.load import Dataset, as_pixels, load
from bench.errors import BenchError
from bench.models.monotone.layer import Monotone
from bench.settings.config import Config, load_config
from bench.settings.specs import parse_model
from bench.training.job_identity import Job, make_job
from bench.training.loop import build_model, train
from bench.training.recipes.ibp import ibp, ramp_up, steps_down
from bench.training.recipes.standard import TrainingStep, cosine
from tests.bench.helpers import ROOT
from tests.parts import submodule


@pytest.fixture(scope="module")
def settings() -> Config:
    return load_config(ROOT / "bench.toml")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits", Path("unused"))


def job(name: str, data: Dataset, settings: Config, epochs: int | None = None) -> Job:
    return make_job(parse_model(name), data, settings, seed=0, epochs=epochs)


def moment(done: float) -> TrainingStep:
    return TrainingStep(done, torch.Generator())


def test_ramp_is_a_quartic_and_then_its_tangent() -> None:
    assert ramp_up(-1) == ramp_up(0) == 0
    assert ramp_up(1) == ramp_up(2) == 1
    assert ramp_up(0.2) / ramp_up(0.1) == pytest.approx(16)
    step = 1e-6
    slopes = [(ramp_up(t + step) - ramp_up(t - step)) / (2 * step) for t in (0.25 - 2 * step, 0.3, 0.9)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)
    assert slopes[1] == pytest.approx(slopes[2])


@pytest.mark.parametrize("epochs", [300, 40])
def test_rate_falls_at_its_shares_of_any_number_of_epochs(epochs: int) -> None:
    steps = epochs * 10
    rates = [steps_down(step, steps) for step in range(steps)]
    assert rates[0] == rates[steps * 120 // 300 - 1] == 1
    assert rates[steps * 120 // 300] == rates[math.ceil(steps * 280 / 300) - 1] == 0.2
    assert rates[-1] == pytest.approx(0.04)


def test_cosine_is_what_standard_training_always_had() -> None:
    for step in range(0, 1000, 7):
        assert 1e-3 * cosine(step, 1000) == 1e-3 * 0.5 * (1 + math.cos(math.pi * step / 1000))


def test_radius_and_monotonicity_follow_the_moment() -> None:
    radii: list[float] = []
    annealed: list[tuple[float, float]] = []

    def worst_case(x: torch.Tensor, y: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        radii.append(eps)
        return torch.zeros(len(x), 3), torch.zeros(len(x), 3)

    net = SimpleNamespace(worst_case=worst_case, eps=0.2, anneal=lambda m, at: annealed.append((m, at)))
    x, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
    for done in (0.0, 0.5 / 300, 40.5 / 300, 80.5 / 300, 0.999):
        ibp(net, x, y, moment(done), m_start=0.99)  # type: ignore[arg-type]
    assert radii[:2] == [0, 0]
    assert 0 < radii[2] < 0.2
    assert radii[3:] == [0.2, 0.2]
    assert annealed[0] == (0.99, 0.0)
    assert annealed[-1] == (0.99, 1.0)
    assert annealed[2][1] == pytest.approx(0.5)
    ibp(net, x, y, moment(0.9), eps=0.3)  # type: ignore[arg-type]
    assert radii[-1] == 0.3
    assert len(annealed) == 5


def test_clean_loss_is_mixed_in_by_its_weight(data: Dataset, settings: Config) -> None:
    net = build_model(job("ibp-mondeq[eps=0.1,width=16]", data, settings), data)
    x, y = as_pixels(data.x_train[:32]), data.y_train[:32]
    seen = moment(0.9)
    worst, half, clean = (ibp(net, x, y, seen, clean=weight).detach() for weight in (0.0, 0.5, 1.0))
    assert float(worst) > float(clean)
    assert float(half) == pytest.approx((float(worst) + float(clean)) / 2, rel=1e-5)
    assert float(clean) == pytest.approx(float(functional.cross_entropy(net(x), y).detach()), rel=1e-5)
    assert len(seen.logits) == 3


def test_ibp_mondeq_is_trained_with_ibp_and_its_settings(data: Dataset, settings: Config) -> None:
    plain = job("ibp-mondeq", data, settings)
    assert plain.recipe.name == "ibp"
    assert plain.options["eps"] == 0.00785
    expected = {"epochs": 300, "batch_size": 128, "lr": 5e-4, "grad_clip": 10.0}
    assert {key: plain.settings[key] for key in expected} == expected
    assert plain.digest() == job("ibp-mondeq+ibp", data, settings).digest()
    assert job("ibp-mondeq[eps=0.1]+ibp[epochs=40]", data, settings).settings["epochs"] == 40
    assert job("ibp-mondeq", data, settings, epochs=40).settings["epochs"] == 40
    for name in ("ibp-mondeq+standard", "mondeq", "deq"):
        other = job(name, data, settings)
        assert other.recipe.name == "standard"
        assert other.settings["lr"] == settings.train.lr
        assert other.settings["epochs"] == settings.train.epochs["digits"]


@pytest.mark.parametrize(
    ("name", "reason"), [("deq+ibp", "interval bounds"), ("mondeq[width=8]+ibp", r"\+ibp\[eps=0.1\]")]
)
def test_what_cannot_be_trained_on_intervals_says_so(
    name: str, reason: str, data: Dataset, settings: Config, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=reason):
        train(job(name, data, settings, epochs=1), data, tmp_path, torch.device("cpu"), settings.train)


def test_a_share_beyond_one_is_refused(data: Dataset, settings: Config) -> None:
    with pytest.raises(BenchError, match="clean"):
        job("ibp-mondeq+ibp[clean=1.5]", data, settings)


@pytest.mark.parametrize("form", ["dense", "3"])
def test_interval_loss_falls(form: str, data: Dataset, settings: Config) -> None:
    net = build_model(job(f"ibp-mondeq[eps=0.05,width=4,form={form}]", data, settings), data).train()
    x, y = as_pixels(data.x_train[:64]), data.y_train[:64]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = ibp(net, x, y, moment(0.9))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_training_logs_accuracy_and_ends_with_the_models_own_monotonicity(
    data: Dataset, settings: Config, tmp_path: Path
) -> None:
    from bench.training.checkpoint_files import load_weights

    chosen = job("ibp-mondeq[eps=0.02,width=16]+ibp[m_start=0.99,lr=5e-3]", data, settings, epochs=3)
    path = train(chosen, data, tmp_path, torch.device("cpu"), settings.train)
    net = build_model(chosen, data)
    load_weights(path, net)
    assert float(submodule(net, "body.monotone", Monotone).get_buffer("m")) == 0.5
    rows = path.with_suffix(".csv").read_text().split()[1:]
    assert len(rows) == 3
    assert float(rows[-1].split(",")[2]) > 0.5

"""Trained MNIST classifiers under a strong attack: nothing fires. Takes the real data and the committed checkpoints."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from bench.data.load import Dataset, load
from bench.diagnostics.overall_reading import read
from bench.diagnostics.suite import SUITE, diagnose
from bench.models.images import Classifier
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model
from tests.bench.diagnostics.cases import make_case, strong
from tests.conftest import ROOT, Trained

N = 200
RADII = tuple(Fraction(radius, 255) for radius in (2, 4, 6, 8))
MODELS = [
    "fc-linear",
    "deq",
    "deq+pgd-at[eps=0.1,step=0.025,epochs=2]",
    "ibp-mondeq[eps=0.1]+ibp[lr=3e-3,epochs=40]",
]


@pytest.fixture(scope="module")
def mnist(real_data: Path) -> Dataset:
    return load("mnist", real_data)


@pytest.fixture(scope="module")
def committed(mnist: Dataset, config: Config) -> Trained:
    """A model by name from the committed checkpoints, or those in BENCH_CHECKPOINTS; skips without."""
    folder = Path(os.environ.get("BENCH_CHECKPOINTS", ROOT / "results/checkpoints"))

    def get(name: str) -> Classifier:
        job = make_job(parse_model(name), mnist, config, seed=0)
        path = job.checkpoint(folder)
        if not path.exists():
            pytest.skip(f"no checkpoint {path}")
        net = build_model(job, mnist)
        assert isinstance(net, Classifier)
        load_weights(path, net)
        return net.eval().requires_grad_(False)

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_no_sign_of_failure(name: str, committed: Trained, mnist: Dataset, config: Config) -> None:
    twin = "" if name == "fc-linear" else "fc-linear"
    context = make_case(
        name, committed, mnist, config, attacks=strong, radii=RADII, twin=twin, n=N, canary=Fraction(3, 10)
    )
    results = [diagnose(diagnostic, context) for diagnostic in SUITE.values()]
    fired = [f"{result.name} {result.verdict}: {result.sentence}" for result in results if result.fired]
    assert not fired
    assert read(results).name == "no sign of failure"
    assert (next(result for result in results if result.name == "sandwich").verdict == "OK") == ("ibp" in name)

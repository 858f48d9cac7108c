"""The packed engine: the reference engine's outcomes, at the budget it says."""

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from bench.attacks.core.cascade import bind
from bench.attacks.protocols import paper
from bench.data.load import Dataset
from bench.evaluation.batch import Evaluated, examples_of
from bench.evaluation.budget import Budget
from bench.evaluation.input_space import Space
from bench.evaluation.packed_engine import evaluate_packed
from bench.evaluation.reference_engine import evaluate
from bench.execution.tasks import TOGETHER
from bench.models.equilibrium.work_counter import counting
from bench.models.inference.folding import PROBE
from bench.registry import attack
from bench.settings.radii import parse_eps
from tests.bench.helpers import Inside, bench, command, environment, last_line
from tests.conftest import Trained

EPS = ("2", "4", "8", "20")
PLANS = [(name, options, float(parse_eps(eps))) for eps in EPS for name, options in paper(parse_eps(eps)).items()]
EQUAL = 0.999  # share of outcomes


def both(
    trained: Trained, name: str, data: Dataset, rows: int, space: Space = "pixel"
) -> tuple[list[Evaluated], list[Evaluated]]:
    """The paper's attacks by the reference engine and by the packed one, images kept."""
    net, batch = trained(name), examples_of(data, range(200), seed=0)
    alone = [
        evaluate(net, bind(attack[kind], attack[kind].resolve(options)), batch, eps, classes=10, batch_size=100,
                 space=space, keep_images=True)
        for kind, options, eps in PLANS
    ]  # fmt: skip
    ascents = [(attack[kind].traits.ascent_of(attack[kind].resolve(options)), eps) for kind, options, eps in PLANS]
    packed = evaluate_packed(
        net, ascents, batch, classes=10, batch_size=100, forward_size=rows, space=space, keep_images=True
    )
    return alone, packed


@pytest.mark.parametrize(
    ("name", "space"), [("resnet20", "pixel"), ("deq", "pixel"), ("deq", "normalised"), ("lyadeq", "pixel")]
)
def test_outcomes_are_those_of_the_reference(trained: Trained, digits: Dataset, name: str, space: Space) -> None:
    alone, packed = both(trained, name, digits, 1000, space)
    pairs = [(one.outcomes, other.outcomes) for one, other in zip(alone, packed, strict=True)]
    same = np.concatenate([a["broken"] == b["broken"] for a, b in pairs])
    assert same.mean() >= EQUAL
    broken = np.concatenate([a["broken"] for a, _ in pairs])
    assert 0.05 < broken.mean() < 0.95, "an attack that breaks nothing, or everything, compares nothing"
    for one, other in zip(alone, packed, strict=True):
        a, b = one.outcomes, other.outcomes
        assert one.images is not None and other.images is not None
        right = a["clean"] == a["label"]
        for column in ("index", "label", "clean"):
            assert (a[column] == b[column]).all()
        assert (b["adversarial"][~right] == b["clean"][~right]).all() and (b["linf"][~right] == 0).all()
        assert np.allclose(a["linf"][right], b["linf"][right], atol=2e-3)
        assert (one.images[right] - other.images[right]).abs().gt(1e-6).float().mean() < 0.01
        assert np.isfinite(b["residual"]).all() == np.isfinite(a["residual"]).all()


def test_one_attack_at_a_time_gives_the_references_bits(digits: Dataset) -> None:
    """Where every image of the batch is classified correctly, batches have the same shape; and nothing here folds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    batch = examples_of(digits, list(range(200)), seed=0)
    with torch.no_grad():
        batch = replace(batch, y=net(batch.x.float() / 255).argmax(1))
    ascents = [(attack[kind].traits.ascent_of(attack[kind].resolve(options)), eps) for kind, options, eps in PLANS]
    packed = evaluate_packed(net, ascents, batch, classes=10, batch_size=100, forward_size=100, keep_images=True)
    for (kind, options, eps), found in zip(PLANS, packed, strict=True):
        search = bind(attack[kind], attack[kind].resolve(options))
        alone = evaluate(net, search, batch, eps, classes=10, batch_size=100, keep_images=True)
        assert alone.images is not None and found.images is not None
        assert torch.equal(alone.images, found.images)


def test_budgets_add_up_to_what_was_spent(trained: Trained, digits: Dataset) -> None:
    net, calls = trained("deq"), list[int]()
    net.register_forward_hook(lambda module, inputs, logits: calls.append(len(logits)))
    ascents = [(attack[kind].traits.ascent_of(attack[kind].resolve(options)), eps) for kind, options, eps in PLANS]
    batch = examples_of(digits, range(100), seed=0)
    with counting() as work:
        found = evaluate_packed(net, ascents, batch, classes=10, batch_size=50, forward_size=200)
        budgets = [one.budget for one in found]
    forwards = sum(b.forwards for b in budgets)
    assert forwards == sum(calls) - 2 * PROBE, "that the folded model is the model is looked at once"
    right = forwards - sum(b.backwards for b in budgets) - len(batch)  # one verdict for each ascent and right image
    assert right % len(ascents) == 0 and 80 < right // len(ascents) <= 100
    steps = 2 + 5 + 10 + 24
    assert sum(b.backwards for b in budgets) == right // len(ascents) * (steps + 24 + 1 + 2)
    assert work.f_evaluations == 0, "what the pack counts is its own"
    assert sum(b.f_evaluations for b in budgets) > sum(calls)


def test_a_budget_is_divided_without_remainder() -> None:
    whole = Budget(10, 7, 101, 3, 1.0)
    parts = whole.shared([1, 2, 0, 4])
    total = Budget()
    for part in parts:
        total.add(part)
    assert total.as_dict() == pytest.approx(whole.as_dict())
    assert parts[2].as_dict() == Budget().as_dict() and parts[3].f_evaluations in (57, 58)
    assert [part.forwards for part in whole.shared([0, 0])] == [0, 0]


MATRIX = ("--models", "deq,fc-linear", "--eps", "2,8,30", "--epochs", "3", "--workers", "1")


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): pq.read_table(path)["broken"].to_numpy()
        for path in sorted((folder / "results/store").rglob("*.parquet"))
    }


def test_killed_within_a_pack_it_goes_on_to_the_same_outcomes(tmp_path: Path, inside: Inside) -> None:
    bench(tmp_path, "run", *MATRIX)
    whole = stored(tmp_path)
    random.seed(0)
    for _ in range(3):
        for name in random.sample(sorted(whole), len(whole) // 2):
            (tmp_path / name).unlink(missing_ok=True)
        process = subprocess.Popen(
            command("run", *MATRIX),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = len(stored(tmp_path))
        while process.poll() is None and len(stored(tmp_path)) == before:
            time.sleep(0.005)
        process.kill()
        process.wait()
    inside(tmp_path, "run", *MATRIX)
    again = stored(tmp_path)
    assert again.keys() == whole.keys()
    assert np.concatenate([again[name] == whole[name] for name in whole]).mean() >= EQUAL


def test_the_manifest_names_engine_and_rows(tmp_path: Path, inside: Inside) -> None:
    import json

    options = ("--models", "deq,resnet20", "--eps", "8", "--epochs", "1", "--examples", "250", "--attacks", "ifgsm,pgd")
    inside(tmp_path, "run", *options)
    rows = {}
    for path in (tmp_path / "results/store").rglob("manifest.json"):
        assert json.loads((path.parent / "key.json").read_text())["engine"]["name"] == "packed"
        rows[path.parent.parent.name] = json.loads(path.read_text())["request"]["rows_per_forward"]
    assert rows == {"deq": 2 * TOGETHER * 250, "resnet20": 250}


BAD = """
from bench.attacks.core.sign_ascent import SignAscent
from bench.registry import attack


@attack("bad", label="BAD", ascent=lambda: SignAscent(lambda x, radius: lambda ahead: ahead + 9, 2, 0.01))
def bad(model, x, y, eps, draws):
    '''Leaves the pixel range.'''
    return x + 9
"""
VIEWS = """
import torch
from torch import nn
from bench.registry import model
from bench.models.deq import deq


class Views(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(torch.cat([x, x.flip(3)])).view(2, len(x), -1).mean(0)


@model("two-views")
def two_views(images):
    '''A DEQ on an image and its mirror image.'''
    return Views(deq(images))
"""


def test_a_pack_with_a_bad_attack_loses_that_attack_alone(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    base = ("--models", "fc-linear", "--eps", "8", "--epochs", "1", "--examples", "250", "--plugin", "bad.py")
    done = inside(tmp_path, "run", *base, "--attacks", "bad,ifgsm,pgd", code=2)
    assert "fc-linear, BAD: " in last_line(done) and "left [0, 1]" in last_line(done)
    assert sorted(path.split("/")[-2].split("@")[0] for path in stored(tmp_path)) == ["ifgsm", "pgd"]


@pytest.mark.parametrize("engine", ["packed", "reference"])
def test_an_equilibrium_on_other_rows_than_the_images_has_no_residual(
    tmp_path: Path, inside: Inside, engine: str
) -> None:
    (tmp_path / "views.py").write_text(VIEWS)
    base = ("--models", "two-views", "--eps", "8", "--epochs", "1", "--examples", "250", "--plugin", "views.py")
    inside(tmp_path, "run", *base, "--engine", engine)
    residuals = [pq.read_table(path)["residual"].to_numpy() for path in tmp_path.rglob("*.parquet")]
    assert len(residuals) == 2 and all(len(r) == 250 and np.isnan(r).all() for r in residuals)

"""Certificates through the harness: exact ones against brute force, a trained one, and one that lies."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import ContractError
from bench.attacks.core.draws import Draws
from bench.errors import BenchError
from bench.evaluation.batch import Batch
from bench.evaluation.certificates import certificates, certify
from tests.bench.helpers import Inside, cell_folders, last_line, store_content

EXACT = '''
import torch
from torch import nn
from bench.registry import model
from bench.models.images import Classifier

class Linear(Classifier):
    """Linear in the pixels: its worst case over a box is attained pixel by pixel."""

    def certify(self, x, y, eps):
        low, high = ((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
        low, high = (self.normalize(part).flatten(1)[:, None] for part in (low, high))
        layer = self.body[1]
        weight = layer.weight[y][:, None] - layer.weight
        worst = torch.where(weight > 0, weight * low, weight * high).sum(2) + layer.bias[y][:, None] - layer.bias
        return ((worst > 0) | nn.functional.one_hot(y, worst.shape[1]).bool()).all(1)

@model("exact-linear")
def exact_linear(images):
    """Multinomial regression with its exact certificate."""
    channels, height, width = images.shape
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, images.classes))
    return Linear(images, body)
'''

LIAR = EXACT.replace("exact-linear", "liar").replace(
    "return ((worst", "return torch.ones_like(y, dtype=torch.bool) if eps > 0.02 else ((worst"
)

TWO = (
    EXACT.replace("exact-linear", "two")
    + """
def lie(self, x, y, eps):
    return torch.ones_like(y, dtype=torch.bool) if eps > 0.02 else self.certify(x, y, eps)

Linear.certificates = property(lambda self: {"exact": self.certify, "lie": lambda *given: lie(self, *given)})
"""
)


class Boxed(nn.Module):
    """Logits A x + b on 2×2 images, with the certificate its class is given."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))

    def certify(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        low, high = (x - eps).clamp_min(0).flatten(1)[:, None], (x + eps).clamp_max(1).flatten(1)[:, None]
        weight = self.layer.weight[y][:, None] - self.layer.weight
        worst = torch.where(weight > 0, weight * low, weight * high).sum(2) + (
            self.layer.bias[y][:, None] - self.layer.bias
        )
        return ((worst > 0) | nn.functional.one_hot(y, 3).bool()).all(1)


@torch.no_grad()
def by_vertices(net: nn.Module, x: Tensor, y: int, eps: float) -> bool:
    """Whether all 16 corners of one image's ball, cut to [0, 1], are classified as y: exact for a linear model."""
    ends = [(max(0.0, p - eps), min(1.0, p + eps)) for p in (x / 255).flatten().tolist()]
    corners = torch.tensor(list(itertools.product(*ends))).view(-1, 1, 2, 2)
    return bool((net(corners).argmax(1) == y).all())


def no_draws(indices: Sequence[int]) -> Draws:
    raise AssertionError("a certificate draws nothing")


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.2])
def test_stored_certificates_are_those_of_brute_force(eps: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (40, 1, 2, 2), generator=generator, dtype=torch.uint8)
    net = Boxed(0)
    y = net(x / 255).argmax(1)
    y[::7] = (y[::7] + 1) % 3  # misclassified ones, which nothing certifies
    found = certify(net, Batch(x, y, range(10, 50), no_draws), eps, classes=3, batch_size=16)
    outcomes, budget = found.outcomes, found.budget
    assert outcomes["index"].tolist() == list(range(10, 50)) and budget.forwards == 40
    expected = [by_vertices(net, image, int(label), eps) for image, label in zip(x, y, strict=True)]
    assert outcomes["certified"].tolist() == expected
    assert 0 < sum(expected) < 40
    assert not (outcomes["certified"] & (outcomes["clean"] != outcomes["label"])).any()


def test_a_certificate_that_is_no_bool_per_image_is_refused() -> None:
    net = Boxed(0)
    net.certify = lambda x, y, eps: torch.ones(len(x))  # type: ignore[method-assign]
    with pytest.raises(ContractError, match="certify must return bool"):
        x, y = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
        certify(net, Batch(x, y, range(2), no_draws), 0.1, classes=3, batch_size=2)


def test_certified_accuracy_of_a_trained_monotone_deq(tmp_path: Path, inside: Inside) -> None:
    options = ("--models", "ibp-mondeq[width=40],fc-linear", "--eps", "1,8", "--epochs", "6", "--attacks", "pgd")
    done = inside(tmp_path, "run", *options)
    table = done.stdout.split("Accuracy in per cent")[0]
    lines = [line for line in table.splitlines() if " certificate" in line]
    assert any(" certificate " in line and line.count("—") == 2 for line in lines), "fc-linear proves nothing"
    assert sum("certificate[IBP]" in line for line in lines) == sum("certificate[dual]" in line for line in lines) == 1
    found = json.loads(inside(tmp_path, "table", *options, "--format", "json").stdout)
    by_kind = {
        name: {r["eps"]: r for r in found if r["attack"] == name and "ibp" in r["model"]}
        for name in ("PGD", "certificate[IBP]", "certificate[dual]")
    }
    for eps in ("1/255", "8/255"):
        attacked, proven, more = (of_kind[eps] for of_kind in by_kind.values())
        assert proven["n"] == more["n"] == attacked["n"] == 359
        assert proven["low"] < proven["accuracy"] < proven["high"]
        assert proven["accuracy"] < more["accuracy"] <= attacked["accuracy"]
    assert by_kind["certificate[IBP]"]["1/255"]["accuracy"] > 20 + by_kind["certificate[IBP]"]["8/255"]["accuracy"]

    # A lost shard is made again, to the same bits; the attack's seed makes no other certificates.
    store = tmp_path / "results/store"
    before = store_content(store)
    lost = next(path for path in sorted(store.rglob("*.parquet")) if "certificate@" in str(path))
    lost.unlink()
    inside(tmp_path, "run", *options)
    assert store_content(store) == before
    columns = pq.read_table(lost).to_pandas()
    assert list(columns) == ["index", "label", "clean", "certified"]
    inside(tmp_path, "run", *options, "--seed", "1")
    keys = [json.loads((f / "key.json").read_text()) for f in cell_folders(store) if "certificate@" in f.name]
    keyed = [key["attack"]["options"] for key in keys]
    assert keyed.count({}) == keyed.count({"method": "dual"}) == 2 == len(keyed) / 2, "interval bounds keep their key"
    dry = inside(tmp_path, "run", *options, "--eps", "1,4", "--dry-run").stdout
    row = next(line for line in dry.splitlines() if "ibp-mondeq" in line)
    assert "  3        6 " in row, "PGD and two certificates at 4/255, two shards each"


def test_an_exact_certificate_is_above_no_attack_and_a_lie_is_told(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "exact.py").write_text(EXACT)
    (tmp_path / "liar.py").write_text(LIAR)
    options = ("--eps", "2,16", "--epochs", "3", "--examples", "100")
    inside(tmp_path, "run", *options, "--models", "exact-linear", "--plugin", "exact.py")
    lied = inside(tmp_path, "run", *options, "--models", "liar", "--plugin", "liar.py", code=2)
    assert "BUG: the certificate of liar at 16/255 is wrong: PGD at 16/255 breaks" in last_line(lied)
    assert "at 2/255 is wrong" not in lied.stdout and "BUG" in lied.stdout
    # What is certified at 16/255 is attacked at 2/255 too, inside that ball.
    assert "PGD at 2/255 breaks" in lied.stdout


def test_a_control_shows_no_certificates(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "exact.py").write_text(EXACT)
    options = ("--eps", "2", "--epochs", "1", "--examples", "10", "--plugin", "exact.py", "--models", "exact-linear")
    assert "certificate" not in inside(tmp_path, "run", *options, "--protocol", "paper-normalized").stdout


def test_each_of_several_certificates_is_judged(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "two.py").write_text(TWO)
    options = ("--eps", "2,16", "--epochs", "3", "--examples", "100", "--models", "two", "--plugin", "two.py")
    lied = inside(tmp_path, "run", *options, code=2)
    assert "BUG: the certificate[lie] of two at 16/255 is wrong: PGD at 16/255 breaks" in last_line(lied)
    assert "certificate[exact] of two" not in lied.stdout
    checked = inside(tmp_path, "check", "two", "--plugin", "two.py", code=2)
    (line,) = (line for line in checked.stdout.splitlines() if "its certificates are" in line)
    assert line.startswith("FAIL") and "not within a smaller radius" in line


def test_which_certificates_a_model_offers() -> None:
    net = Boxed(0)
    (only,) = certificates(net)
    assert (only.label, only.options) == ("certificate", {})
    assert certificates(net.layer) == []
    net.certificates = {"a": net.certify, "b": lambda x, y, eps: y >= 0}  # type: ignore[assignment]
    first, second = certificates(net)
    assert (first.label, first.options) == ("certificate[a]", {})
    assert (second.label, second.options) == ("certificate[b]", {"method": "b"})
    x, y = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    batch = Batch(x, y, range(2), no_draws)
    assert certify(net, batch, 0.1, classes=3, batch_size=2, method="b").outcomes["certified"].all()
    with pytest.raises(ContractError, match="no certificate 'c'"):
        certify(net, batch, 0.1, classes=3, batch_size=2, method="c")
    net.certificates = {"a": 1}  # type: ignore[assignment]
    with pytest.raises(BenchError, match="must map names to methods"):
        certificates(net)


@pytest.mark.parametrize(("source", "name", "holds"), [(EXACT, "exact-linear", True), (LIAR, "liar", False)])
def test_check_tries_certificates(source: str, name: str, holds: bool, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "mine.py").write_text(source)
    done = inside(tmp_path, "check", name, "--plugin", "mine.py", code=0 if holds else 2)
    (line,) = (line for line in done.stdout.splitlines() if "its certificates are" in line)
    assert line.startswith("ok" if holds else "FAIL") and holds == ("not within a smaller radius" not in line)

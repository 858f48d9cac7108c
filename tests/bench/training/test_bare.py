"""mean and std of [models.NAME] are applied, whatever the architecture returns, or refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.evaluation.input_space import check_space
from bench.execution.model_sources import model_source
from bench.execution.worker import load_model
from bench.models.images import Classifier, Images
from bench.registry import model
from bench.settings.config import Config, UserModel
from bench.settings.specs import parse_model
from bench.training.job_identity import make_job
from bench.training.loop import build_model
from tests.bench.helpers import Inside, last_line

MEAN, STD = [0.25], [0.4]  # not those of digits


class OwnWay(nn.Module):
    """Normalises by itself, with what its images say, and is no Classifier."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.shift, self.scale = images.mean[0], images.std[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.shift) / self.scale)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    len(list(model))
    monkeypatch.setattr(model, "_entries", dict(model._entries))
    model("bare-net")(lambda images: net())
    model("own-way")(lambda images: OwnWay(images))
    model("with-weights", pretrained=True)(lambda images: net())


def declared(config: Config, arch: str, path: Path, mean: list[float] = MEAN, std: list[float] = STD) -> Config:
    user = UserModel(arch=arch, checkpoint=path, mean=mean, std=std)
    return config.model_copy(update={"models": {"mine": user}})


@pytest.mark.usefixtures("architectures")
@pytest.mark.parametrize("arch", ["bare-net", "own-way"])
def test_the_normalisation_is_applied_once(arch: str, digits: Dataset, config: Config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = net() if arch == "bare-net" else OwnWay(digits.images)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    plain = theirs.net if isinstance(theirs, OwnWay) else theirs
    x = as_pixels(digits.x_test[:20])
    own = declared(config, arch, tmp_path / "net.pt")
    job = make_job(parse_model("mine"), digits, own, seed=0)
    with torch.no_grad():
        expected = plain((x - MEAN[0]) / STD[0])
    built = build_model(job, digits).eval()
    found_at = model_source("mine", job, digits, tmp_path)
    loaded = load_model(found_at.source, digits, "cpu", found_at.identity.weights)  # as a worker does
    for found in (built, loaded):
        assert torch.allclose(found(x), expected, atol=1e-5)
    if arch == "bare-net":
        check_space(built, "normalised", x)
        assert isinstance(built, Classifier)
        assert torch.allclose(built.body(built.normalize(x)), expected, atol=1e-5)
        other = make_job(parse_model("mine"), digits, declared(config, arch, tmp_path / "net.pt", [0.0], [1.0]), 0)
        assert torch.allclose(build_model(other, digits).eval()(x), plain(x), atol=1e-5)


@pytest.mark.usefixtures("architectures")
def test_an_architecture_with_weights_takes_no_other_ones(digits: Dataset, config: Config, tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "net.pt")
    with pytest.raises(BenchError, match=r"\[models.mine\]: arch 'with-weights' comes with weights .*leave them out"):
        make_job(parse_model("mine"), digits, declared(config, "with-weights", tmp_path / "net.pt"), seed=0)


BARE = """
from torch import nn
from bench.registry import model
@model("bare-net")
def bare(images):
    '''A bare network.'''
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_clean_accuracy_of_a_bare_network_trained_behind_its_normalisation(
    tmp_path: Path, inside: Inside, digits: Dataset
) -> None:
    torch.manual_seed(0)
    theirs, x = net(), (as_pixels(digits.x_train) - 5 * MEAN[0]) / (STD[0] / 5)
    optimizer = torch.optim.Adam(theirs.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(x), digits.y_train).backward()
        optimizer.step()
    test = (as_pixels(digits.x_test) - 5 * MEAN[0]) / (STD[0] / 5)
    right = 100 * float((theirs(test).argmax(1) == digits.y_test).float().mean())
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    (tmp_path / "bare.py").write_text(BARE)
    (tmp_path / "bench.toml").write_text(
        f'[models.mine]\narch = "bare-net"\ncheckpoint = "net.pt"\nmean = [{5 * MEAN[0]}]\nstd = [{STD[0] / 5}]\n'
    )
    options = ("--plugin", "bare.py", "--models", "mine", "--eps", "8", "--attacks", "ifgsm")
    assert right > 80 and f" {right:.2f}" in inside(tmp_path, "run", *options).stdout
    assert "(control)" in inside(tmp_path, "run", *options, "--protocol", "paper-normalized").stdout


SPLITS = """
from torch import nn
from bench.registry import model
from bench.models.images import Classifier, Images

class Other(Classifier):
    def forward(self, x):
        return self.body(self.normalize(x)) + 3 * self.body(x)

@model("none")
def none(images):
    '''Not split.'''
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

@model("other")
def other(images):
    '''Split into what it is not made of.'''
    return Other(images, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
"""


@pytest.mark.parametrize(("name", "reason"), [("none", "not split into `normalize`"), ("other", "gives other logits")])
def test_the_control_is_refused_before_training_row_by_row(
    name: str, reason: str, tmp_path: Path, inside: Inside
) -> None:
    (tmp_path / "splits.py").write_text(SPLITS)
    options = (
        *("--plugin", "splits.py", "--models", f"{name},fc-linear", "--epochs", "1", "--examples", "1"),
        *("--protocol", "paper-normalized", "--eps", "8"),
    )
    for more in ((), ("--dry-run",)):
        done = inside(tmp_path, "run", *options, *more, code=2)
        assert last_line(done).count("cannot be evaluated under a protocol that attacks normalised tensors") == 1
        assert f"bench: {name}: it cannot" in last_line(done) and reason in last_line(done)
        assert "fc-linear" in done.stdout
    assert not list(tmp_path.rglob(f"{name}-seed0*.safetensors")) and list(tmp_path.rglob("fc-linear*.safetensors"))
    inside(tmp_path, "train", "--plugin", "splits.py", "--models", name, "--epochs", "0")

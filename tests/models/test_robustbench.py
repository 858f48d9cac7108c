"""RobustBench's models behind our names: with a zoo made here, and with the real one where it is installed."""

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models import robustbench
from bench.models.images import Images
from bench.models.weights.robustbench_package import load_zoo, robustbench_installation
from bench.registry import model
from tests.bench.helpers import Inside, cell_folders, last_line, store_content
from tests.parts import submodule

CIFAR10 = Images((3, 32, 32), 10, (0.5,) * 3, (0.5,) * 3)
FILE = "cifar10/Linf/Tiny2020.pt"


class Named(Enum):
    """Keys of the zoo, which are members of an Enum there too."""

    CIFAR10, CIFAR100, IMAGENET, LINF = "cifar10", "cifar100", "imagenet", "Linf"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        self.register_buffer("mu", torch.full((3,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)) - self.get_buffer("mu"))


class Zoo:
    """A zoo of one model, and RobustBench's own functions as far as they are called."""

    def __init__(self) -> None:
        entry = {"model": Tiny, "gdrive_id": "drive-id"}
        tables: Any = {key: {Named.LINF: {"Tiny2020": entry}} for key in (Named.CIFAR10, Named.IMAGENET)}
        self.modules = (SimpleNamespace(model_dicts={**tables, Named.CIFAR100: {Named.LINF: {}}}), self)
        self.online: dict[str, Tensor] | None = None

    def download_gdrive_new(self, gdrive_id: str, path: Path) -> None:
        print("Downloading")
        if self.online is None:
            raise ConnectionError("HTTPSConnectionPool: no route\nto host")
        assert gdrive_id == "drive-id"
        torch.save(self.online, path)

    def load_model(self, name: str, folder: Path, dataset: str, threat: str) -> nn.Module:
        net = Tiny()
        net.load_state_dict(torch.load(folder / dataset / threat / f"{name}.pt", weights_only=True), strict=False)
        return net


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Zoo:
    made = Zoo()
    monkeypatch.setattr(robustbench, "load_zoo", lambda: made.modules)
    monkeypatch.setattr(robustbench, "version", lambda name: "0")
    return made


@pytest.fixture
def build(zoo: Zoo, tmp_path: Path) -> Callable[..., nn.Module]:
    return lambda images=CIFAR10, **options: model["robustbench:Tiny2020"].target(
        images, model_dir=str(tmp_path), **options
    )


def put(tmp_path: Path, content: object) -> Path:
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


def test_loads_a_file_that_is_there_and_takes_images_in_0_1(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    theirs = Tiny()
    state = theirs.state_dict()
    del state["mu"]  # as files of real models lack what the architecture sets itself
    put(tmp_path, state)
    x = torch.rand(2, 3, 32, 32)
    net = build()
    assert not net.training and torch.equal(net(x), theirs(x))


def test_downloads_where_it_can(
    zoo: Zoo, build: Callable[..., nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.online = Tiny().state_dict()
    assert torch.equal(submodule(build(), "head", nn.Linear).weight, zoo.online["head.weight"])
    assert (tmp_path / FILE).is_file() and capsys.readouterr().out == ""


def test_without_network_it_says_which_file_goes_where(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"could not be downloaded \(ConnectionError: HTTPSConn.*drive-id at") as error:
        build()
    assert str(tmp_path / FILE) in str(error.value) and "\n" not in str(error.value)


class RunsCode:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_file_with_code_is_refused_before_robustbench_sees_it(
    build: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    put(tmp_path, {"state_dict": RunsCode()})
    with pytest.raises(BenchError, match=r"is refused: it asks for posix\.mkdir"):
        build()
    assert not (tmp_path / "ran").exists()


def test_a_file_that_leaves_parameters_as_they_were_is_refused(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = put(tmp_path, {"head.weight": torch.zeros(10, 3)})
    with pytest.raises(BenchError, match=r"lacks 1 of its parameters \(first: head\.bias\)") as error:
        build()
    assert str(path) in str(error.value)


def test_a_file_of_another_shape_is_told(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    put(tmp_path, {"head.weight": torch.zeros(5, 3), "head.bias": torch.zeros(10)})
    with pytest.raises(BenchError, match=r"RobustBench cannot load Tiny2020 from .*size mismatch") as error:
        build()
    assert "\n" not in str(error.value)


def test_names_and_data_that_do_not_fit(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(BenchError, match=r"unknown model of RobustBench 'Tiny2021': did you mean 'Tiny2020'"):
        model["robustbench:Tiny2021"]
    with pytest.raises(BenchError, match=r"takes 3×32×32 images of 10 or 100 classes.* has 1×8×8 and 10 classes"):
        build(Images((1, 8, 8), 10, (0.5,), (0.5,)))
    with pytest.raises(BenchError, match=r"no Tiny2020 for cifar100 and threat=Linf; it is there for cifar10"):
        build(Images((3, 32, 32), 100, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(BenchError, match="no Tiny2020 for cifar10 and threat=L2"):
        build(threat="L2")
    with pytest.raises(BenchError, match=r"threat='L7': Input should be 'Linf'"):
        model["robustbench:Tiny2020"].resolve({"threat": "L7"})


def write_cifar10(folder: Path, n: int) -> None:
    rng, y = np.random.default_rng(0), np.arange(10)
    x = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
    (folder / "data").mkdir()
    np.savez(folder / "data/cifar10.npz", x_train=x, y_train=y, x_test=x[:n], y_test=y[:n])


def test_a_run_keys_the_weights_and_not_their_place(zoo: Zoo, tmp_path: Path, inside: Inside) -> None:
    write_cifar10(tmp_path, 3)
    for place in ("here", "there"):
        put(tmp_path / place, {"head.weight": torch.eye(10, 3), "head.bias": torch.zeros(10)})
        name = f"robustbench:Tiny2020[model_dir={place}]"
        done = inside(tmp_path, "run", "--models", name, "--dataset", "cifar10", "--eps", "8", "--attacks", "ifgsm")
        assert "training it now" not in done.stderr
    assert len({(folder / "key.json").read_text() for folder in cell_folders(tmp_path / "results/store")}) == 1
    done = inside(tmp_path, "run", "--models", "robustbench:Tiny2020+trades", "--dataset", "cifar10", code=2)
    assert "comes with its weights; it takes no recipe 'trades'" in last_line(done)


@pytest.fixture
def real() -> Any:
    """The real zoo's tables."""
    state, what = robustbench_installation()
    if state != "ok":
        pytest.skip(what)
    return robustbench._tables(load_zoo()[0])


def random_weights(tables: Any, name: str, folder: Path) -> nn.Module:
    """A model of the zoo with random weights, and these where the zoo would look for its own."""
    torch.manual_seed(0)
    net: nn.Module = tables["cifar10", "Linf"][name]["model"]()
    place = folder / "cifar10/Linf"
    place.mkdir(parents=True, exist_ok=True)
    several = getattr(net, "models", None)
    members = {"": net} if several is None else {f".pt_m{i}": one for i, one in enumerate(several)}
    for suffix, one in members.items():
        kept = {k: v for k, v in one.state_dict().items() if k not in ("mu", "sigma")}
        torch.save({"state_dict": {f"module.{k}": v for k, v in kept.items()}}, place / f"{name}{suffix}.pt")
    return net.eval()


@pytest.mark.parametrize("name", ["Wong2020Fast", "Sehwag2021Proxy_R18", "Chen2020Adversarial"])
def test_real_architectures_give_their_own_logits(name: str, real: Any, tmp_path: Path) -> None:
    theirs = random_weights(real, name, tmp_path)
    ours = model[f"robustbench:{name}"].target(CIFAR10, model_dir=str(tmp_path))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_real_model_runs_and_is_checked(real: Any, tmp_path: Path, inside: Inside) -> None:
    write_cifar10(tmp_path, 3)
    random_weights(real, "Wong2020Fast", tmp_path / "downloads/robustbench")
    options = ("--models", "robustbench:Wong2020Fast", "--dataset", "cifar10", "--eps", "1", "--attacks", "ifgsm")
    assert "robustbench:Wong2020Fast" in inside(tmp_path, "run", *options).stdout
    assert len(store_content(tmp_path / "results/store")) == 1
    done = inside(tmp_path, "check", "robustbench:Wong2020Fast", "--dataset", "cifar10")
    assert "FAIL" not in done.stdout

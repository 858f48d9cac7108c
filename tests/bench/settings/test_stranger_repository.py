"""The program in a research repository that has packages `models`, `attacks` and `tests` of its own."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from hatchling import build

from tests.conftest import ROOT

PLUGIN = """
from attacks.mine import noise
from bench import Classifier, Images, attack, model
from models.net import net
from tests.helper import LABEL


@model("mine", pretrained=True)
def mine(images: Images):
    '''A network of this repository.'''
    return Classifier(images, net(images.shape, images.classes))


@attack("noise", label=LABEL)
def theirs(model, x, y, eps, draws):
    '''An attack of this repository.'''
    return noise(x, eps, draws)
"""
NET = """
import torch
from torch import nn


def net(shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
MINE = """
def noise(x, eps, draws):
    return (x + draws.unit(x.shape[1:]).to(x) * eps.view(-1, 1, 1, 1)).clamp(0, 1)
"""


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an environment's folders have other names there")


def make_repository(folder: Path, *, packages: bool) -> None:
    """Write the repository, with or without `__init__.py` in its folders."""
    files = {"models/net.py": NET, "attacks/mine.py": MINE, "tests/helper.py": "LABEL = 'NOISE'", "plugin.py": PLUGIN}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    if packages:
        for name in ("models", "attacks", "tests"):
            (folder / name / "__init__.py").write_text("")
    (folder / "bench.toml").write_text("[run]\nexamples = 20\n")


def installed(folder: Path, made: Callable[[str], str] | None) -> Path:
    """The Python of an environment with this project's dependencies, and the project as a build hook makes it."""
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    dependencies = [place for place in sys.path if Path(place).name == "site-packages"]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    if made is not None:
        with chdir(ROOT):
            wheel = folder / made(str(folder))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("way", "packages"), [("wheel", True), ("editable", False), ("checkout", True), ("checkout", False)]
)
def test_it_runs_lists_and_loads_a_plugin(way: str, packages: bool, tmp_path: Path) -> None:
    repository = tmp_path / "research"
    make_repository(repository, packages=packages)
    made = {"wheel": build.build_wheel, "editable": build.build_editable, "checkout": None}[way]
    python = installed(tmp_path / "environment", made)
    script = tmp_path / "scripts" / "bench"
    script.parent.mkdir()
    script.write_text("import sys\nfrom bench.cli.app import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "160"}
    if way == "checkout":
        environment["PYTHONPATH"] = str(ROOT)

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    where = run(python, "-c", "import bench; print(bench.__file__)")
    assert (str(ROOT) in where) == (way != "wheel")
    listed = run(python, "-m", "bench", "list", "models", "--plugin", "plugin.py")
    assert "A network of this repository." in listed
    table = run(
        python, script, "run", "--models", "mine", "--attacks", "noise,ifgsm", "--eps", "8", "--plugin", "plugin.py",
        "--workers", "2",
    )  # fmt: skip
    assert "NOISE" in table and "I-FGSM" in table and "failed" not in table

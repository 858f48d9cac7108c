"""Plugins as their authors bring them: the README's example, an installed wheel, bench.toml; and our own wheel."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bench.helpers import Inside, bench
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readmes_defence_exactly_as_printed(tmp_path: Path, inside: Inside) -> None:
    text = section("Add your own defence")
    (source,), (console,) = blocks(text, "python"), blocks(text, "console")
    assert len(source.splitlines()) <= 25
    name = re.search(r"Save this as `(\S+)`", text)
    assert name
    (tmp_path / name[1]).write_text(source)
    check, run = (line.split("#")[0].split() for line in console.strip().splitlines())
    assert check[:3] == run[:3] == ["python", "-m", "bench"]
    assert "FAIL" not in inside(tmp_path, *check[3:]).stdout
    table = inside(tmp_path, *run[3:]).stdout
    assert "blur-net" in table and "fc-linear" in table and "failed" not in table
    assert "blur-net" in inside(tmp_path, "list", "models", "--plugin", name[1]).stdout


def test_the_readmes_attack_exactly_as_printed(tmp_path: Path, inside: Inside) -> None:
    (source,) = blocks(section("Add an attack"), "python")
    (tmp_path / "fgsm.py").write_text(source)
    assert "FAIL" not in inside(tmp_path, "check", "fgsm", "--plugin", "fgsm.py").stdout
    options = ("--models", "fc-linear", "--epochs", "2", "--eps", "8", "--attacks", "fgsm[scale=0.5],ifgsm")
    assert "FGSM[scale=0.5]" in inside(tmp_path, "run", *options, "--plugin", "fgsm.py").stdout


def test_the_readmes_data_set(tmp_path: Path, inside: Inside) -> None:
    import numpy as np

    (toml,) = blocks(section("Add a data set"), "toml")
    (tmp_path / "bench.toml").write_text(toml)
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    x = (rng.integers(0, 40, (80, 1, 6, 6)) + 50 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "data" / "my-digits.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    options = ("--models", "fc-linear", "--epochs", "2", "--eps", "8", "--dataset", "my-digits")
    assert "my-digits" in inside(tmp_path, "run", *options).stdout
    assert "my-digits" in inside(tmp_path, "list", "datasets").stdout
    assert "ok    it loads" in inside(tmp_path, "check", "my-digits").stdout


def test_a_defence_declared_in_bench_toml(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "mine.py").write_text(blocks(section("Add your own defence"), "python")[0])
    (tmp_path / "bench.toml").write_text(
        'plugins = ["mine.py"]\n[models.small-blur]\narch = "blur-net"\noptions = { hidden = 8 }\n'
    )
    out = inside(tmp_path, "run", "--models", "small-blur", "--epochs", "1", "--eps", "8").stdout
    assert "small-blur" in out
    assert "small-blur" in inside(tmp_path, "list", "models").stdout


def test_an_edited_plugin_never_answers_from_its_old_cells(tmp_path: Path) -> None:
    source = blocks(section("Add your own defence"), "python")[0]
    options = ("--models", "blur-net", "--epochs", "1", "--eps", "8", "--attacks", "ifgsm", "--plugin", "mine.py")
    for number, text in enumerate((source, source.replace("AvgPool2d", "MaxPool2d")), 1):
        (tmp_path / "mine.py").write_text(text)
        bench(tmp_path, "run", *options, "--workers", "1")
        assert len(list(tmp_path.rglob("key.json"))) == number


def build_wheel(source: Path, target: Path) -> Path:
    """A wheel, built with what is installed and without the network."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(target),
            str(source),
        ],
        check=True,
    )
    return next(target.glob("*.whl"))


def install(wheel: Path, target: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)],
        check=True,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which our own wheel is installed, as in an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(ROOT, folder)
    names = zipfile.ZipFile(wheel).namelist()
    assert "bench/bench.toml" in names and "bench/models/deq.py" in names and "bench/attacks/core/contract.py" in names
    assert not any(name.startswith(("models/", "attacks/")) for name in names)
    assert {"bench/paper/table1.csv", "bench/paper/inconsistencies.json", "bench/page/page.html.j2"} <= set(names)
    assert not any(name.startswith(("tests/", "results/")) for name in names)
    install(wheel, folder / "site")
    return folder / "site"


def test_our_wheel_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import bench, bench.models; print(bench.__file__, bench.models.__file__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.count(str(installed)) == 2
    done = bench(tmp_path, "run", "--models", "fc-linear", "--epochs", "2", "--eps", "8", package=installed)
    assert "fc-linear" in done.stdout and (tmp_path / "results/store/store.json").exists()
    bench(tmp_path, "report", "--out", "page.html", package=installed)
    assert "fc-linear" in (tmp_path / "page.html").read_text()


def test_a_defence_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "their_defence.py").write_text(blocks(section("Add your own defence"), "python")[0])
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "their-defence"\nversion = "1.0"\n'
        '[project.entry-points."bench.plugins"]\nblur = "their_defence"\n'
        '[tool.hatch.build.targets.wheel]\ninclude = ["their_defence.py"]\n'
    )
    site = tmp_path / "site"
    site.symlink_to(installed)
    install(build_wheel(project, tmp_path), site)
    done = bench(tmp_path, "run", "--models", "blur-net,fc-linear", "--epochs", "2", "--eps", "8", package=site)
    assert "blur-net" in done.stdout and "failed" not in done.stdout
    assert "blur-net" in bench(tmp_path, "list", "models", package=site).stdout

"""What is wrong with an installed `robustbench` is told in one line that says how to repair it."""

import sys
from importlib.metadata import Distribution, FileHash, PackageNotFoundError, PackagePath
from pathlib import Path
from types import ModuleType

import pytest

from bench.checks import installation as doctor
from bench.errors import BenchError
from bench.models.weights import robustbench_package as package
from bench.registry import model


class Installed(Distribution):
    """A distribution of one module, which now holds something else unless its hash is left out."""

    def __init__(self, folder: Path, changed: bool) -> None:
        (folder / "robustbench").mkdir()
        (folder / "robustbench/__init__.py").write_text("stale = True\n")
        file = PackagePath("robustbench/__init__.py")
        file.hash, file.size, file.dist = FileHash("sha256=" + "A" * 43) if changed else None, 1, self
        self.folder, self.file = folder, file

    @property
    def files(self) -> list[PackagePath]:
        return [self.file]

    def locate_file(self, path: object) -> Path:
        return self.folder / str(path)

    def read_text(self, filename: str) -> None:
        return None


def absent(name: str) -> None:
    raise PackageNotFoundError(name)


def told(*needles: str) -> None:
    """The doctor and the adapter say the same."""
    state, what = package.robustbench_installation()
    assert state != "ok" and all(needle in what for needle in needles), what
    assert doctor.InstallationResult(state, what) in doctor.examine()
    with pytest.raises(BenchError) as caught:
        model["robustbench:Carmon2019Unlabeled"]
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "distribution", absent)
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    told("is not installed", "pip install robustbench")


def test_torchattacks_copy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "distribution", absent)
    monkeypatch.setattr(package, "find_spec", lambda name: "somewhere")
    told("torchattacks' stale copy", "pip install robustbench")


@pytest.mark.parametrize(("stale", "why"), [(True, "torchattacks' stale copy"), (False, "not what was installed")])
def test_overwritten(stale: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(tmp_path, changed=True)
    monkeypatch.setattr(package, "distribution", lambda name: installed)
    monkeypatch.setattr(package, "_ships_robustbench", lambda: stale)
    told(why, "robustbench/__init__.py differs", "pip install --force-reinstall --no-deps robustbench")


def test_a_requirement_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(tmp_path, changed=False)
    monkeypatch.setattr(package, "distribution", lambda name: installed)

    def fail() -> None:
        raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr(package, "_import_zoo", fail)
    told("cannot be imported", "No module named 'timm'", "pip install robustbench")


@pytest.mark.parametrize("missing", [set(), {"autoattack"}, {"autoattack", "pkg_resources"}])
def test_what_its_benchmark_lacks_is_said_and_does_not_matter(
    missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(tmp_path, changed=False)
    monkeypatch.setattr(package, "distribution", lambda name: installed)
    modules = ModuleType("zoo"), ModuleType("utils")
    monkeypatch.setattr(package, "_import_zoo", lambda: modules)
    monkeypatch.setattr(package, "find_spec", lambda name: None if name in missing else "somewhere")
    state, what = package.robustbench_installation()
    assert state == "ok" and all(name in what for name in missing)
    assert ("its own benchmark() cannot run" in what) == bool(missing)
    assert package.load_zoo() == modules


def test_the_zoo_is_imported_without_what_the_package_imports_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sham_zoo_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("import autoattack_that_nobody_has\n")
    (folder / "model_zoo.py").write_text("import sham_zoo_package.utils\nmodel_dicts = {}\n")
    (folder / "utils.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(package, "NAME", folder.name)
    for _ in range(2):
        zoo, utils = package._import_zoo()
        assert zoo.model_dicts == {} and utils.__name__ == "sham_zoo_package.utils"
        assert folder.name not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="autoattack_that_nobody_has"):
        __import__(folder.name)
    assert folder.name not in sys.modules

"""Plugins: files and installed packages that register models, attacks or data sets.

A plugin imports what lies beside it, or in the working directory, as a script does. Folders of this project's checkout
share names with those of most research repositories (`models`, `attacks`, `tests`), and a checkout may be on the search
path: these names are looked for everywhere else first.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from bench.errors import BenchError, first_line

GROUP = "bench.plugins"

_CHECKOUT = Path(__file__).resolve().parents[2]


class _ElsewhereFirst(MetaPathFinder):
    """Finds a top-level package that this checkout has a folder of the same name as, in any other place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not (_CHECKOUT / fullname / "__init__.py").is_file() or fullname == "bench":
            return None
        return PathFinder.find_spec(fullname, [place for place in sys.path if Path(place).resolve() != _CHECKOUT])


def load_plugins(paths: Iterable[str]) -> list[str]:
    """Import every installed plugin (entry points of `bench.plugins`) and every file given.

    A plugin that fails takes nothing else down: the failures come back as one line each.
    """
    failures = []
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            failures.append(f"plugin '{point.name}' ({point.value}) failed to import: {first_line(error)}.")
    for path in paths:
        try:
            _load_file(Path(path))
        except BenchError as error:
            failures.append(str(error))
        except (Exception, SystemExit) as error:
            failures.append(f"plugin {path} failed to import: {first_line(error)}.")
    return failures


def _load_file(path: Path) -> None:
    path = path.resolve()
    if not path.is_file():
        raise BenchError(f"--plugin: there is no file {path}.")
    _search_like_a_script(path.parent)
    name = f"bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BenchError(f"--plugin: {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _search_like_a_script(folder: Path) -> None:
    """Let imports find what lies in the plugin's folder and in the working directory, in this order, first."""
    if not any(isinstance(finder, _ElsewhereFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ElsewhereFirst())
    for place in (str(Path.cwd()), str(folder)):
        if place in sys.path:
            sys.path.remove(place)
        sys.path.insert(0, place)

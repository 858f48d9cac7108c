"""Plugins: files and installed packages that register models, attacks or data sets."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from bench.errors import BenchError, first_line

GROUP = "bench.plugins"


def load_plugins(paths: Iterable[str]) -> list[str]:
    """Import every installed plugin (entry points of `bench.settings.plugins`) and every file given.

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

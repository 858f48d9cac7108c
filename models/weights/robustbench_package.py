"""The `robustbench` package as it is installed here: its state, the fix where it is wrong, and its model zoo.

The only file that imports it. Two things get in its way. Every wheel of torchattacks carries a stale
`robustbench`, which overwrites the package when it is installed after it. And `import robustbench` runs its
benchmark first, which needs `autoattack` (on no index) and `pkg_resources` (gone from setuptools 81 on);
the model zoo behind it needs neither, so its modules are imported without the package's own `__init__.py`.
"""

import hashlib
import sys
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Literal

from bench.errors import BenchError, first_line

State = Literal["ok", "note", "FAIL"]

NAME = "robustbench"
INSTALL = "pip install robustbench"
REPAIR = f"pip install --force-reinstall --no-deps {NAME}"
OF_ITS_BENCHMARK = ("autoattack", "pkg_resources")


def load_zoo() -> tuple[ModuleType, ModuleType]:
    """The modules `robustbench.model_zoo` and `robustbench.utils`.

    Raises:
        BenchError: the package is absent, overwritten or cannot be imported; the line says how to repair it.
    """
    state, what = robustbench_installation()
    if state != "ok":
        raise BenchError(f"RobustBench's models cannot be used: {what}.")
    return _import_zoo()


def robustbench_installation() -> tuple[State, str]:
    """Whether the model zoo can be used, and a line that says why not and what mends it."""
    stale = _ships_robustbench()
    try:
        real = distribution(NAME)
    except PackageNotFoundError:
        if find_spec(NAME) is None:
            return "note", f"robustbench is not installed; only its model zoo needs it: {INSTALL}"
        return "note", f"`import robustbench` gives torchattacks' stale copy, not the package; for the zoo: {INSTALL}"
    changed = _changed(real)
    if changed:
        by = "overwritten by torchattacks' stale copy" if stale else "not what was installed"
        return "FAIL", f"robustbench is {by} ({changed[0]} differs): {REPAIR}"
    try:
        _import_zoo()
    except Exception as error:  # of whatever kind an incompatible requirement raises
        return "FAIL", f"robustbench's model zoo cannot be imported ({first_line(error)}); its requirements: {INSTALL}"
    missing = " and ".join(name for name in OF_ITS_BENCHMARK if find_spec(name) is None)
    note = f" ({missing} missing: its own benchmark() cannot run, and is not needed here)" if missing else ""
    return "ok", f"robustbench's files are its own, its model zoo can be used{note}"


def _import_zoo() -> tuple[ModuleType, ModuleType]:
    with _without_init(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, of models that it has itself and the zoo registers again
        return import_module(f"{NAME}.model_zoo"), import_module(f"{NAME}.utils")


@contextmanager
def _without_init() -> Iterator[None]:
    """Inside, modules of the package can be imported though its `__init__.py` has not run.

    Afterwards the package counts as not imported, so that another's `import robustbench` is what it always is.
    """
    if NAME in sys.modules:
        yield
        return
    spec = find_spec(NAME)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{NAME}'")
    sys.modules[NAME] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[NAME]


def _ships_robustbench() -> bool:
    try:
        files = distribution("torchattacks").files or []
    except PackageNotFoundError:
        return False
    return any(file.parts[0] == NAME for file in files)


def _changed(real: Distribution) -> list[str]:
    """Modules of a distribution that are missing or differ from what it installed."""
    changed = []
    for file in real.files or []:
        if file.suffix != ".py" or file.hash is None or file.parts[0] != NAME:
            continue
        path = Path(str(file.locate()))
        content = path.read_bytes() if path.exists() else b""
        digest = hashlib.new(file.hash.mode, content).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(str(file))
    return changed

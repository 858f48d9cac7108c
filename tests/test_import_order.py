"""Imports point one way, in the order declared here; files and lists of parameters stay short."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from itertools import chain
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Folders and files of `bench`, from the ground up: one may import from itself and from whatever stands left of its bar.
# `bench.models` and `bench.attacks` lie in models/ and attacks/. CONTRIBUTING.md quotes it.
ORDER = """
errors, statistics, traits | registry, settings, system, thresholds | models, paper | attacks, data
| training, evaluation | store, checks | execution | diagnostics, verification | tables | figures, page | cli
"""

LEVELS = {name.strip(): level for level, names in enumerate(ORDER.split("|")) for name in names.split(",")}
FACE = {"__init__", "__main__"}  # of `bench`: the lazy table of public names, and the start of the program
CODE = {".py", ".js", ".css", ".j2"}
LINES = 300
PARAMETERS = 7  # that a caller may give by position


@dataclass(frozen=True)
class Module:
    """A file of ours, or a piece of one.

    Attributes:
        name: dotted, as it is imported: `bench.models.deq`.
        package: what its relative imports start from.
    """

    path: Path
    name: str
    package: str
    source: str

    @property
    def place(self) -> str:
        """The name in ORDER that it belongs to."""
        return self.name.removeprefix("bench.").split(".")[0]


def code(*folders: str) -> list[Path]:
    """Every file of code in these folders of the checkout; what bench/ has links to is listed where it lies."""
    found = chain.from_iterable((ROOT / folder).rglob("*") for folder in folders)
    links = {ROOT / "bench" / name for name in ("models", "attacks")}
    return sorted(path for path in found if path.suffix in CODE and not links & set(path.parents))


def python(*folders: str) -> list[Path]:
    return [path for path in code(*folders) if path.suffix == ".py"]


def modules() -> list[Module]:
    found = []
    for path in python("bench", "models", "attacks"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        whole = parts if parts[0] == "bench" else ("bench", *parts)
        package = ".".join(whole[:-1])
        name = package if whole[-1] == "__init__" else ".".join(whole)
        found.append(Module(path.relative_to(ROOT), name, package, path.read_text("utf-8")))
    return found


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of whatever is imported anywhere in a file: at its head, in functions, for type checkers."""
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = resolve_name("." * node.level + (node.module or ""), module.package) if node.level else node.module
            # `from bench import tables` names a folder; what is taken from a deeper module changes no level.
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def against_the_order(module: Module) -> list[str]:
    """Where a module imports what stands above it or beside it, one line each with file, line and module."""
    found = []
    for line, name in imports(module):
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top in ("models", "attacks"):
            found.append(f"{module.path}:{line}: {name}: inside it is bench.{top}")
        elif name in ("bench", "bench.*"):
            found.append(f"{module.path}:{line}: {name}: name the module that is needed")
        elif top != "bench" or target in (module.place, "__version__"):
            continue
        elif target not in LEVELS:
            found.append(f"{module.path}:{line}: {name}: bench.{target} has no place in the order")
        elif LEVELS[target] >= LEVELS[module.place]:
            side = "above" if LEVELS[target] > LEVELS[module.place] else "beside"
            found.append(f"{module.path}:{line}: {name}: {target} stands {side} {module.place}")
    return list(dict.fromkeys(found))


def too_many(source: str) -> list[str]:
    """Functions that take more than seven arguments by position, `self` and `cls` not counted: line, name, number."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > PARAMETERS:
                found.append(f"{node.lineno}: {getattr(node, 'name', 'lambda')} takes {count}")
    return found


def test_every_file_of_bench_has_a_place_in_the_order() -> None:
    places = {module.place for module in modules()} - FACE - {"bench"}
    assert places == set(LEVELS)


def test_no_import_runs_against_the_order() -> None:
    inside = [module for module in modules() if module.place not in FACE | {"bench"}]
    assert len(inside) > 150
    found = [line for module in inside for line in against_the_order(module)]
    assert not found, "\n" + "\n".join(found)


def test_contributing_quotes_the_order() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text("utf-8").split())
    assert " ".join(ORDER.split()) in text


@pytest.mark.parametrize(
    "source",
    [
        "from bench.tables.table_lines import Line",
        "import bench.tables.table_lines",
        "import bench.tables.table_lines as lines",
        "from bench import tables",
        "from bench.tables import lines",
        "from ..tables import lines",
        "from ..tables.lines import Line",
        "def f():\n    from bench.tables.table_lines import Line",
        "class A:\n    def f(self):\n        import bench.tables",
        "if TYPE_CHECKING:\n    from bench.tables.table_lines import Line",
        "try:\n    import bench.tables\nexcept ImportError:\n    pass",
        "import_module('bench.tables.table_lines')",
        "importlib.import_module('bench.tables.table_lines')",
        "from bench.checks import suite",  # beside it
        "from bench import input_gradient",  # the face is for plugins
        "from bench import *",
        "import bench",
        "from bench.helpers import x",  # no such place
        "import models",
        "import models.deq",
        "from models.deq import deq",
        "from attacks import apgd",
    ],
)
def test_an_import_against_the_order_is_seen(source: str) -> None:
    (line,) = against_the_order(Module(Path("bench/store/x.py"), "bench.store.x", "bench.store", f"\n{source}\n"))
    assert re.match(r"bench/store/x\.py:[2-4]: (bench|models|attacks)", line)


@pytest.mark.parametrize(
    "source",
    [
        "from bench.evaluation.budget import Budget",
        "from bench.models import deq",
        "from bench import __version__",
        "from bench.store.cells import Cell",
        "from . import cells",
        "from .cells import Cell",
        "from benchopt import tables",
        "import torch.nn.attacks",
        "print('bench.tables')",
    ],
)
def test_an_import_along_the_order_passes(source: str) -> None:
    assert not against_the_order(Module(Path("bench/store/x.py"), "bench.store.x", "bench.store", source))


def test_nothing_is_imported_as_models_or_attacks() -> None:
    """In tests and in what documents tell a plugin's author; `against_the_order` looks at the rest."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    pattern = re.compile(r"^\s*(from|import) (models|attacks)\b.*", re.MULTILINE)
    found = [(path.name, match[0]) for path in documents for match in pattern.finditer(path.read_text("utf-8"))]
    for path in python("tests"):
        module = Module(path, "tests", ".".join(path.relative_to(ROOT).parent.parts), path.read_text("utf-8"))
        found += [(path.name, name) for _, name in imports(module) if name.split(".")[0] in ("models", "attacks")]
    assert not found


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in code("bench", "models", "attacks", "tests")}
    assert len(lengths) > 250
    found = [f"{path.relative_to(ROOT)}: {length} lines" for path, length in lengths.items() if length > LINES]
    assert not found, f"\nabove {LINES}:\n" + "\n".join(found)


def test_no_function_takes_too_many_arguments_by_position() -> None:
    files = python("bench", "models", "attacks", "tests")
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in too_many(path.read_text("utf-8"))]
    assert not found, f"\nabove {PARAMETERS}, make the rest keyword-only:\n" + "\n".join(found)


def test_arguments_by_position_are_counted() -> None:
    seven = "a, b, c, d, e, f, g"
    assert not too_many(f"def f({seven}, *rest, h, i=1, **more): ...")
    assert not too_many(f"class A:\n    def f(self, {seven}): ...\n    def g(cls, {seven}): ...")
    assert too_many(f"def f({seven}, h): ...") == ["1: f takes 8"]
    assert too_many(f"def f({seven}, h=1): ...") == ["1: f takes 8"]
    assert too_many(f"def f(a0, /, {seven}): ...") == ["1: f takes 8"]
    assert too_many(f"async def f({seven}, h): ...") == ["1: f takes 8"]
    assert too_many(f"key = lambda {seven}, h: 0") == ["1: lambda takes 8"]
    assert too_many(f"def outer():\n    def f(self, {seven}, h): ...") == ["2: f takes 8"]

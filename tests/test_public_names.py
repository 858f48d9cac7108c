"""The face of the package: what a plugin imports, and that it costs nothing until it is asked for."""

import subprocess
import sys

import bench


def test_every_public_name_is_there() -> None:
    for name in bench.__all__:
        assert getattr(bench, name) is not None
    assert set(bench._PUBLIC) | {"__version__"} == set(bench.__all__)


def test_import_alone_loads_neither_torch_nor_pydantic() -> None:
    code = "import bench, sys; print(sorted({'torch', 'pydantic', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(bench, "modle")

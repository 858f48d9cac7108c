"""A cell's identity as it lies on disk: read and written without loss, and the key it always had."""

import json
from pathlib import Path

import pytest

from bench.store.identity import CellIdentity
from bench.system.canonical import canonical
from tests.conftest import ROOT

KEYS = sorted((ROOT / "results" / "store").glob("*/*/*/key.json"))


@pytest.mark.skipif(not KEYS, reason="no committed store")
def test_the_committed_cells_have_the_keys_they_were_stored_under() -> None:
    assert len(KEYS) >= 500
    for path in KEYS:
        content = json.loads(path.read_text())
        identity = CellIdentity.from_json(content)
        assert path.parent.name.endswith(f"-{identity.key()[:16]}")
        assert canonical(identity.to_json()) == canonical(content)
        assert CellIdentity.from_json(identity.to_json()) == identity


@pytest.mark.parametrize(
    ("place", "value"),
    [(("eps",), "a lot"), (("model", "weights"), 3), (("attack",), None), (("engine", "batch"), "x"), (("data",), {})],
)
def test_other_content_is_no_identity(place: tuple[str, ...], value: object, tmp_path: Path) -> None:
    content = json.loads(EXAMPLE)
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises((KeyError, TypeError, ValueError)):
        CellIdentity.from_json(content)


EXAMPLE = """{
 "attack": {"implementation": "1", "name": "ifgsm", "options": {"steps": 7}},
 "data": {"hash": "h", "name": "digits", "split": "test"},
 "device": "cpu", "dtype": "float32", "engine": {"batch": 250, "name": "packed", "version": 2}, "eps": "2/85",
 "model": {"architecture": "deq", "implementation": "1", "options": {}, "weights": "w"},
 "protocol": {"implementation": "1", "name": "paper"}, "schema": 1, "seed": 0
}"""

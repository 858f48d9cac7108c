"""Checkpoints that are refused, in one line: damaged ones, and those that would run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.training.external_checkpoints import read_sets
from tests.bench.training.foreign import FORMS


@pytest.mark.parametrize("form", ["bare.pth", "nested.th", "model.pt", "bare.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_refused(form: str, share: float, theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / form
    FORMS[form](theirs.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BenchError, match=f"{form} is (truncated or damaged|refused)") as caught:
        read_sets(path)
    assert "\n" not in str(caught.value)


class Bomb:
    """What a malicious checkpoint holds."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["zip.pth", "legacy.th", "pickle.pt"])
def test_a_pickle_that_would_run_code_is_refused(form: str, protocol: int, theirs: nn.Module, tmp_path: Path) -> None:
    path, mark = tmp_path / form, tmp_path / "mark"
    content = {"state_dict": theirs.state_dict(), "extra": Bomb(mark)}
    if form == "pickle.pt":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip.pth")
    with pytest.raises(BenchError, match=r"refused: .* could run code. Save its state_dict alone") as caught:
        read_sets(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused_too(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(BenchError, match=r"asks for torch.nn.modules.linear.Linear"):
        read_sets(tmp_path / "module.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(BenchError, match="holds no state_dict"):
        read_sets(tmp_path / "empty.pt")

"""What the C library is asked for, also one that refuses."""

import ctypes
import os
from types import SimpleNamespace

import pytest

from bench.system.memory import LARGE, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, MOST, keep_freed, use_large_pages


@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        (LARGE, [(M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, 2 * LARGE - 1)]),
        (MOST, [(M_MMAP_THRESHOLD, LARGE), (M_MMAP_THRESHOLD, MOST), (M_TRIM_THRESHOLD, 2 * LARGE - 1)]),
        (0, [(M_MMAP_THRESHOLD, LARGE), (M_MMAP_THRESHOLD, MOST)]),
    ],
)
def test_a_threshold_that_is_refused_is_lowered(
    limit: int, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return int(option == M_TRIM_THRESHOLD or value <= limit)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed()
    assert calls == asked


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed()


@pytest.mark.parametrize(("set_before", "after"), [(None, "1"), ("0", "0")])
def test_large_pages_are_asked_for_and_a_user_is_not_overruled(
    set_before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if set_before is not None:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", set_before)
    use_large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == after

"""Documents: links resolve, files that are named exist, decisions have their parts, the picture shows the order."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_import_order import ORDER

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for path in (ROOT / "results/README.md", ROOT / "tests/benchmarks/README.md") if path.exists()),
]
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which names files as they were called
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"`((?:bench|models|attacks|tests|results|docs|\.ci)/[\w./-]+)`")


def prose(text: str) -> str:
    """Without what stands in blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What a heading is linked by on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> Iterator[str]:
    """Links of a document that lead nowhere."""
    for target, anchor in LINK.findall(prose(path.read_text("utf-8"))):
        place = path.parent / target if target else path
        if not place.exists():
            yield target
        elif anchor and anchor not in anchors(place.read_text("utf-8")):
            yield f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    assert not list(broken_links(path))


@pytest.mark.parametrize("path", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = NAMED.findall(prose(path.read_text("utf-8")))
    generated = ("results/store", "results/checkpoints")  # may be empty in a checkout of the code alone
    assert [name for name in named if not name.startswith(generated) and not (ROOT / name).exists()] == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A head, and more\n[a](page.md) [b](#a-head-and-more) [c](gone.md) [d](page.md#none)\n")
    assert list(broken_links(page)) == ["gone.md", "page.md#none"]


def test_every_decision_has_its_parts() -> None:
    numbers = [path.name[:3] for path in DECISIONS]
    assert len(numbers) > 30 and len(set(numbers)) == len(numbers)
    for path in DECISIONS:
        head, *parts = re.findall(r"^#+ .+$", path.read_text("utf-8"), re.MULTILINE)
        assert head.startswith(f"# {path.name[:3]} "), path.name
        assert parts == ["## Context", "## Decision", "## What was measured", "## When to think again"], path.name
        bodies = re.split(r"^#.*$", path.read_text("utf-8"), flags=re.MULTILINE)[2:]
        assert all(body.strip() for body in bodies), path.name


def test_decisions_are_listed_by_their_titles() -> None:
    listed = re.findall(r"^- \[(\d{3})\]\((.+?)\) (.+)$", (DECISIONS[0].parent / "README.md").read_text(), re.MULTILINE)
    titles = [path.read_text("utf-8").partition("\n")[0][2:].partition(" ") for path in DECISIONS]
    assert listed == [(number, path.name, title) for path, (number, _, title) in zip(DECISIONS, titles, strict=True)]


def test_the_picture_shows_the_order() -> None:
    picture = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("```text\n")[1].split("```")[0]
    lines = [line[:40].strip() for line in picture.splitlines() if line[:1].isalpha()]
    assert lines == [" ".join(names.split()) for names in reversed(ORDER.split("|"))]


def test_every_folder_has_a_line_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    folders = [path.parent for path in sorted((ROOT / "bench").glob("*/__init__.py")) if not path.parent.is_symlink()]
    assert [folder.name for folder in folders if f"`bench/{folder.name}/`" not in text] == []

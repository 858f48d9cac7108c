"""`.ci/run`: in a copy, with an environment of its own; a contributor's files stay as they are."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest"

# Makes an environment whose tools write down where they were called, and on what.
PYTHON3 = """#!/bin/sh
mkdir -p .venv/bin
for tool in pip python ruff mypy; do
    printf '#!/bin/sh\\necho "%s $*" >> "$LOG"\\n' $tool > .venv/bin/$tool
    chmod +x .venv/bin/$tool
done
{ pwd; find . -name .venv -prune -o ! -type d -print | sort; cat kept.py; readlink link; ls ../shared; } > "$SEEN"
echo "$BENCH_DATA" >> "$SEEN"
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("git") and shutil.which("bash")), reason="needs git and bash, as a contributor has them"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with one file changed, one deleted, one not added, an environment, and data beside it."""
    folder = tmp_path / "a folder" / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "README.md").write_text(f"The tests:\n\n```console\n{TESTS}\n```\n")
    (folder / "kept.py").write_text("before")
    (folder / "with space.py").write_text("")
    (folder / "deleted.py").write_text("")
    (folder / ".gitignore").write_text(".venv/\n")
    (folder / "link").symlink_to("kept.py")
    for arguments in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    (folder / "kept.py").write_text("after\n")
    (folder / "deleted.py").unlink()
    (folder / "stray.py").write_text("")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "mine").write_text("mine")
    (folder.parent / "shared").mkdir()
    (folder.parent / "shared" / "data.txt").write_text("")
    return folder


def run(checkout: Path, tools: str = PYTHON3, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with another `python3`, from another folder and without a terminal."""
    programs, temporary = checkout.parent / "bin", checkout.parent / "temporary"
    for folder in (programs, temporary):
        folder.mkdir()
    (programs / "python3").write_text(tools)
    (programs / "python3").chmod(0o755)
    here = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(temporary),
        "LOG": str(checkout.parent / "log"),
        "SEEN": str(checkout.parent / "seen"),
        **environment,
    }
    done = subprocess.run(
        [checkout / ".ci" / "run"], cwd="/", env=here, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert not list(temporary.iterdir()), "the copy is gone"
    return done


def test_it_runs_in_a_copy_and_leaves_the_checkout_alone(checkout: Path) -> None:
    done = run(checkout, BENCH_DATA="data")
    assert done.returncode == 0, done.stderr
    where, *seen = (checkout.parent / "seen").read_text().splitlines()
    assert Path(where).is_relative_to(checkout.parent / "temporary")
    files = ["./.ci/run", "./.gitignore", "./README.md", "./kept.py", "./link", "./with space.py"]
    assert seen == [*files, "after", "kept.py", "data.txt", str(checkout / "data")]
    assert f"+ {TESTS}" in done.stdout
    log = (checkout.parent / "log").read_text().splitlines()
    assert log == ["pip install -q -e .[test]", "python -m pytest", "ruff check .", "ruff format --check .", "mypy "]
    assert [path.name for path in (checkout / ".venv").rglob("*")] == ["bin", "mine"]
    assert (checkout / "stray.py").exists() and not (checkout / "deleted.py").exists()


@pytest.mark.parametrize("broken", ["pip", "python", "ruff", "mypy"])
def test_it_fails_where_a_step_does(checkout: Path, broken: str) -> None:
    done = run(checkout, PYTHON3 + f"echo 'exit 3' >> .venv/bin/{broken}\n", BENCH_DATA="/data")
    assert done.returncode == 3
    assert (checkout.parent / "seen").read_text().splitlines()[-1] == "/data"


def test_the_readme_has_the_command_that_it_looks_for() -> None:
    assert TESTS in (ROOT / "README.md").read_text("utf-8").splitlines()

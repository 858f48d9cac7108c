"""Files that are either wholly there or not there."""

import errno
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import BenchError, first_line

# What Windows takes for a device, whatever stands behind the dot; and the signs that it keeps for itself.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
_KEPT = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')


def safe_name(name: str) -> str:
    """A name as one part of a path that every system takes; one that is so already stays as it is."""
    name = _KEPT.sub("_", name).rstrip(". ") or "_"
    return f"_{name}" if _DEVICES.fullmatch(name.partition(".")[0].rstrip()) else name


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it.

    Raises BenchError where the disk is full, the folder cannot be written, or `path` is something else than a file,
    a device say, which a rename would replace.
    """
    if path.exists() and not path.is_file():
        raise BenchError(f"cannot write {path}: it is there and is no regular file; name another one.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else first_line(error)
        raise BenchError(
            f"cannot write {path}: {reason}. What was finished is kept; the same command goes on from there."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """With those above it. Raises BenchError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"cannot make the folder {folder}: {first_line(error)}; name another one.") from error


def write_json(path: Path, content: Any) -> None:
    """Atomically, indented, keys in order."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """An object. Raises BenchError for a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read {path}: {first_line(error)}; delete it and run again.") from error
    if not isinstance(content, dict):
        raise BenchError(f"cannot read {path}: not a JSON object; delete it and run again.")
    return content


def under_any_model(folder: Path) -> Path:
    """A folder `…/<model>/<name with a key>`; where it is not there, the one that another name of the model holds."""
    if folder.exists():
        return folder
    return next(iter(sorted(folder.parent.parent.glob(f"*/{folder.name}"))), folder)

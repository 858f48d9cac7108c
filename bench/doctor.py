"""`bench doctor`: what this environment has, and the traps it may hold."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from bench.environment import describe
from bench.plugins import GROUP

State = Literal["ok", "note", "FAIL"]

REPAIR = (
    "pip install --force-reinstall --no-deps robustbench (after torchattacks, whose wheel carries a stale copy of it)"
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at, and the fix where it is wrong."""

    state: State
    what: str


def examine() -> list[Finding]:
    """Look at versions, device, plugins and the packages that are known to get in each other's way."""
    facts = describe()
    git = facts["git"]
    commit = f", commit {git['commit'][:10]}{' (modified)' if git['dirty'] else ''}" if git.get("commit") else ""
    found = [Finding("ok", f"bench {facts['bench']}{commit}, Python {facts['python']}, {facts['platform']}")]
    for name, version in facts["packages"].items():
        optional = name == "robustbench"
        if version:
            found.append(Finding("ok", f"{name} {version}"))
        else:
            found.append(Finding("note" if optional else "FAIL", f"{name} is not installed"))
    found += [_device(), _torch_pair(), robustbench_state()]
    found += [Finding("ok", f"plugin {point.name} = {point.value}") for point in entry_points(group=GROUP)]
    return found


def robustbench_state() -> Finding:
    """Whether `robustbench` is itself, absent, or torchattacks' stale copy."""
    stale = _ships_robustbench()
    try:
        real = distribution("robustbench")
    except PackageNotFoundError:
        if find_spec("robustbench") is None:
            return Finding("note", "robustbench is absent: its model zoo cannot be used; nothing else needs it")
        return Finding(
            "note", f"`import robustbench` gives torchattacks' stale copy, not the package; for the model zoo: {REPAIR}"
        )
    changed = _changed(real)
    if changed and stale:
        return Finding(
            "FAIL", f"robustbench is overwritten by torchattacks' stale copy ({changed[0]} differs): {REPAIR}"
        )
    return Finding("ok", "robustbench's files are its own")


def _ships_robustbench() -> bool:
    try:
        files = distribution("torchattacks").files or []
    except PackageNotFoundError:
        return False
    return any(file.parts[0] == "robustbench" for file in files)


def _changed(real: Distribution) -> list[str]:
    """Files of a distribution whose content is not what it installed."""
    changed = []
    for file in real.files or []:
        path = Path(str(file.locate()))
        if file.suffix != ".py" or file.hash is None or not path.exists():
            continue
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(str(file))
    return changed


def _device() -> Finding:
    if torch.cuda.is_available():
        return Finding("ok", f"GPU {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return Finding("note", f"no GPU: everything runs on the CPU, {torch.get_num_threads()} thread(s)")


def _torch_pair() -> Finding:
    # A CPU-only torch beside the registry's torchvision fails on import, with a message that names neither.
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        return Finding("FAIL", f"torch and torchvision do not fit ({error}): pip install --upgrade torch torchvision")
    return Finding("ok", f"torchvision {torchvision.__version__} loads with torch {torch.__version__}")

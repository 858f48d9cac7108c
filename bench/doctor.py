"""`bench doctor`: what this environment has, and the traps it may hold."""

from dataclasses import dataclass
from importlib.metadata import entry_points

import torch

from bench.environment import describe
from bench.plugins import GROUP
from models.robustbench_package import State, robustbench_installation


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
    found += [_device(), _torch_pair(), Finding(*robustbench_installation())]
    found += [Finding("ok", f"plugin {point.name} = {point.value}") for point in entry_points(group=GROUP)]
    return found


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

"""`bench doctor`: what this environment has, and the traps it may hold."""

from dataclasses import dataclass
from importlib.metadata import entry_points

import torch

from bench.models.weights.robustbench_package import State, robustbench_installation
from bench.settings.plugins import GROUP
from bench.system.environment import describe


@dataclass(frozen=True)
class InstallationResult:
    """One thing looked at, and the fix where it is wrong."""

    state: State
    what: str


def examine() -> list[InstallationResult]:
    """Look at versions, device, plugins and the packages that are known to get in each other's way."""
    facts = describe()
    git = facts["git"]
    commit = f", commit {git['commit'][:10]}{' (modified)' if git['dirty'] else ''}" if git.get("commit") else ""
    found = [InstallationResult("ok", f"bench {facts['bench']}{commit}, Python {facts['python']}, {facts['platform']}")]
    for name, version in facts["packages"].items():
        optional = name == "robustbench"
        if version:
            found.append(InstallationResult("ok", f"{name} {version}"))
        else:
            found.append(InstallationResult("note" if optional else "FAIL", f"{name} is not installed"))
    found += [_device(), _torch_pair(), InstallationResult(*robustbench_installation())]
    found += [InstallationResult("ok", f"plugin {point.name} = {point.value}") for point in entry_points(group=GROUP)]
    return found


def _device() -> InstallationResult:
    if torch.cuda.is_available():
        return InstallationResult("ok", f"GPU {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return InstallationResult("note", f"no GPU: everything runs on the CPU, {torch.get_num_threads()} thread(s)")


def _torch_pair() -> InstallationResult:
    # A CPU-only torch beside the registry's torchvision fails on import, with a message that names neither.
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        return InstallationResult(
            "FAIL", f"torch and torchvision do not fit ({error}): pip install --upgrade torch torchvision"
        )
    return InstallationResult("ok", f"torchvision {torchvision.__version__} loads with torch {torch.__version__}")

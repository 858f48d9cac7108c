"""Adversarial-robustness benchmark for deep equilibrium models.

What a plugin needs is imported from here: `from bench import model, attack, Classifier, Images, input_gradient`.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The packages `bench.models` and `bench.attacks` lie at the top of a checkout and inside `bench` in a wheel. Links in
# this folder lead to them; where a system makes none (git on Windows), the checkout itself is searched.
if not (Path(__file__).parent / "models").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from bench.attacks.core.sign_ascent import input_gradient
    from bench.errors import BenchError
    from bench.models.images import Classifier, Images
    from bench.registry import attack, dataset, model, protocol, recipe
    from bench.settings.lengths import Length, PositiveLength
    from bench.settings.radii import as_eps

# Public name to its module, imported when it is first asked for: `import bench` alone loads no torch.
_PUBLIC = {
    "BenchError": "bench.errors",
    "Classifier": "bench.models.images",
    "Images": "bench.models.images",
    "Length": "bench.settings.lengths",
    "PositiveLength": "bench.settings.lengths",
    "as_eps": "bench.settings.radii",
    "attack": "bench.registry",
    "dataset": "bench.registry",
    "input_gradient": "bench.attacks.core.sign_ascent",
    "model": "bench.registry",
    "protocol": "bench.registry",
    "recipe": "bench.registry",
}

__all__ = [
    "BenchError",
    "Classifier",
    "Images",
    "Length",
    "PositiveLength",
    "__version__",
    "as_eps",
    "attack",
    "dataset",
    "input_gradient",
    "model",
    "protocol",
    "recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value

"""Every attack class of torchattacks by its own name: `torchattacks:MIFGSM`, `torchattacks:CW[c=1]`."""

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.core.draws import Draws
from bench.errors import BenchError, unknown
from bench.registry import AttackEntry, attack
from bench.settings.lengths import PositiveLength
from bench.traits import AttackTraits

# Parameters that are L∞ lengths of pixels. (The steps of its L2 attacks are longer than a pixel's range.)
_LENGTHS = frozenset({"alpha", "delta", "max_epsilon", "noise_sd"})


@attack.namespace("torchattacks")
def find(name: str) -> AttackEntry:
    """The registry entry of a torchattacks class. Raises BenchError for a name it does not have."""
    import torchattacks

    classes = {
        key: value
        for key, value in vars(torchattacks).items()
        if inspect.isclass(value) and issubclass(value, torchattacks.attack.Attack)
    }
    if name not in classes:
        raise unknown("attack of torchattacks", name, classes)
    cls = classes[name]
    parameters = dict(inspect.signature(cls).parameters)
    parameters.pop("model")
    has_eps = parameters.pop("eps", None) is not None
    lengths = frozenset() if name.endswith("L2") else _LENGTHS
    options = _with_signature([p for p in parameters.values() if p.default is not inspect.Parameter.empty], lengths)
    return AttackEntry(
        kind="attack",
        name=f"torchattacks:{name}",
        target=_search(cls, has_eps),
        version=f"1-torchattacks-{version('torchattacks')}",
        options_of=options,
        traits=AttackTraits(label=f"torchattacks:{name}" if has_eps else f"torchattacks:{name} (projected)"),
    )


def _search(cls: Any, has_eps: bool) -> Callable[..., Tensor]:
    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, **options: Any) -> Tensor:
        adversarial = x.clone()
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(draws.batch_seed())
            # torchattacks takes one radius a call.
            for radius in eps.unique().tolist():
                rows = eps == radius
                attacker = cls(model, eps=radius, **options) if has_eps else cls(model, **options)
                found = attacker(x[rows], y[rows]).to(x)
                if not has_eps:
                    # Its own ball is another (L2, L0, …): what is judged is the result's projection on ours.
                    found = (x[rows] + (found - x[rows]).clamp(-radius, radius)).clamp(0, 1)
                adversarial[rows] = found
        return adversarial

    search.__doc__ = f"torchattacks' {cls.__name__}" + ("" if has_eps else ", projected on the L∞ ball") + "."
    search.__name__ = cls.__name__
    return search


def _with_signature(parameters: list[inspect.Parameter], lengths: frozenset[str]) -> Callable[..., Any]:
    def options(**_: Any) -> None:
        if _.get("targeted"):
            raise BenchError("targeted attacks are not part of this threat model")

    # Untyped: the registry then converts to the type of the default.
    plain = [
        p.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            annotation=PositiveLength if p.name in lengths else inspect.Parameter.empty,
        )
        for p in parameters
    ]
    options.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
    return options

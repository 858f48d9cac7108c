"""What an attack must do: stay in the ball and in [0, 1], leave the model alone, repeat itself, and attack."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import Search, linf, run_attack
from bench.attacks.core.draws import Draws
from bench.registry import attack
from bench.settings.specs import Spec

N, SHAPE, CLASSES = 16, (1, 6, 6), 4


def attack_points(spec: Spec) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Points for an attack, on a small network with random weights and images that touch 0 and 1."""
    entry = attack[spec.name]
    search = partial(entry.target, **entry.resolve(spec.options))
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = SHAPE[0] * SHAPE[1] * SHAPE[2]
        net = nn.Sequential(nn.Flatten(), nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    x = torch.rand(N, *SHAPE, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    with torch.no_grad():
        y = net(x).argmax(1)
    yield "it stays in the ball and in [0, 1], with a radius per example", lambda: _bounds(search, net, x, y)
    yield "with ε = 0 it returns the images", lambda: _zero(search, net, x, y)
    yield "it repeats itself bit for bit, whatever the global random state", lambda: _repeats(search, net, x, y)
    yield "it leaves weights, modes and requires_grad as they were", lambda: _restores(search, net, x, y)
    yield "it raises the loss: some example falls at ε = 0.3", lambda: _attacks(search, net, x, y)


def _run(search: Search, net: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    return run_attack(search, net, x, y, eps, Draws(0, "check", range(N)))


def _bounds(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    _run(search, net, x, y, torch.linspace(0, 0.3, N))  # the contract raises with the reason
    return None


def _zero(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    gap = float(linf(x, _run(search, net, x, y, torch.zeros(N))).max())
    return None if gap <= 1e-6 else f"they moved by {gap:.3g}"


def _repeats(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    eps = torch.full((N,), 0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = _run(search, net, x, y, eps)
        torch.manual_seed(2)
        second = _run(search, net, x, y, eps)
    return None if torch.equal(first, second) else "two runs differ: draw from `draws`, not from torch's global state"


def _restores(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    _run(search, net, x, y, torch.full((N,), 0.1))
    kept = net.training and all(p.requires_grad and p.grad is None for p in net.parameters())
    same = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    return None if kept and same else "the model is not as it was"


def _attacks(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    attacked = _run(search, net, x, y, torch.full((N,), 0.3))
    with torch.no_grad():
        broken = int((net(attacked).argmax(1) != y).sum())
    return None if broken else f"none of {N} examples fell: does it descend the loss?"

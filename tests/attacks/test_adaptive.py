"""The adaptive cascade: it gets past what hides a gradient, and says which member did."""

import copy
from functools import partial
from typing import TypedDict

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.adaptive import MEMBERS, adaptive, stages
from bench.attacks.autoattack import autoattack
from bench.attacks.core.cascade import Cascade, CascadeState
from bench.attacks.core.contract import Search, linf, run_attack
from bench.attacks.core.draws import Draws
from bench.evaluation.budget import Budget, Counted
from tests.conftest import Trained
from tests.parts import submodule

N, EPS = 60, 0.15


class Budgets(TypedDict):
    iterations: int
    targets: int
    queries: int


SMALL: Budgets = {"iterations": 20, "targets": 2, "queries": 20}


def masked(net: nn.Module) -> nn.Module:
    """No gradient through the equilibrium, a trace of one past it: what public DEQ libraries leave in eval mode."""
    twin = copy.deepcopy(net)
    layer = submodule(twin, "body.equilibrium", nn.Module)
    inner = layer.forward
    layer.forward = lambda h: inner(h).detach() + 1e-3 * (h - h.detach())
    return twin


def standing(search: Search, net: nn.Module, x: Tensor, y: Tensor) -> int:
    eps = torch.full((len(x),), EPS)
    found = run_attack(search, net, x, y, eps, Draws(0, "t", range(len(x))))
    with torch.no_grad():
        return int((net(found).argmax(1) == y).sum())


def told(reached: CascadeState) -> Tensor:
    """Which stage broke each example, (N,)."""
    assert reached.broken_by is not None
    return reached.broken_by


@pytest.fixture(scope="module")
def batch(images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return images[0][:N], images[1][:N]


@pytest.mark.parametrize("name", ["deq", "lyadeq"])
def test_gets_past_a_masked_equilibrium(name: str, trained: Trained, batch: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = trained(name), batch
    hidden = masked(net)
    usual = partial(autoattack, attacks="apgd-ce+apgd-t", iterations=20, targets=2)
    ours = partial(adaptive, members="apgd-ce+apgd-margin-t+apgd-margin+unrolled+intermediate+simultaneous", **SMALL)
    fooled, seen, plain = standing(usual, hidden, x, y), standing(ours, hidden, x, y), standing(ours, net, x, y)
    assert fooled - seen > 0.1 * N, (fooled, seen)
    assert seen - plain < 0.05 * N, (seen, plain)


def test_twin_breaks_a_model_without_any_gradient(trained: Trained, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    net, twin = trained("fc-linear"), trained("fc-linear")

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).detach() + 0 * x.flatten(1).sum(1, keepdim=True)

    alone = standing(partial(adaptive, members="apgd-ce+twin", **SMALL), Counted(Cut(), Budget(), 10), x, y)
    helped = standing(partial(adaptive, members="apgd-ce+twin", **SMALL), Counted(Cut(), Budget(), 10, twin), x, y)
    assert helped < alone - 0.2 * N


def test_trail_says_who_broke_what(trained: Trained, batch: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = masked(trained("deq")), batch
    names, reached = ["apgd-ce", "unrolled", "square"], CascadeState()
    search = Cascade(stages(members="+".join(names), **SMALL), warm=True)
    eps = torch.full((N,), EPS / 2)
    found = search.resume(net, x, y, eps, Draws(0, "t", range(N)), reached=reached, after=lambda: None)
    with torch.no_grad():
        right, fooled = net(x).argmax(1) == y, net(found).argmax(1) != y
    broken_by = told(reached)
    assert torch.equal(broken_by >= 0, right & fooled)
    assert int((broken_by == 1).sum()) >= 3
    # What stands carries the best image found, still inside its ball.
    still = right & ~fooled
    assert bool((linf(x, found)[still] > 0).any()) and bool((linf(x, found) <= EPS / 2 + 1e-6).all())


def test_goes_on_from_a_smaller_radius(trained: Trained, batch: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = trained("deq"), batch
    search = Cascade(stages(members="apgd-margin", **SMALL), warm=True)
    draws = Draws(0, "t", range(N))
    small = CascadeState()
    first = search.resume(net, x, y, torch.full((N,), 0.08), draws, reached=small, after=lambda: None)
    again = CascadeState(0, first, told(small).clone())
    second = search.resume(net, x, y, torch.full((N,), 0.12), draws, reached=again, after=lambda: None)
    broken = told(small) >= 0
    assert bool(broken.any()) and torch.equal(first[broken], second[broken])
    assert int((told(again) >= 0).sum()) > int(broken.sum())
    assert torch.equal((told(again) >= 0)[broken], broken[broken])


def test_every_member_runs_and_unknown_ones_are_refused(trained: Trained, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    assert tuple(stages()) == MEMBERS
    for member in MEMBERS:
        standing(partial(adaptive, members=member, iterations=2, targets=1, queries=2), trained("lyadeq"), x[:8], y[:8])
    with pytest.raises(ValueError, match="members='apgd-ce\\+nonsense'"):
        stages(members="apgd-ce+nonsense")
    with pytest.raises(ValueError, match="queries must be at least 1"):
        stages(queries=0)

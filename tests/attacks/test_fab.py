"""FAB: its projection against a linear program, its verdicts against closed forms and pyautoattack."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.fab_projections import projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog
from torch import Tensor, nn

from bench.attacks.core.contract import linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import rivals
from bench.attacks.fab import fab, to_hyperplane
from tests.conftest import Trained
from tests.parts import submodule


def aimed(steps: int, rank: int = 0) -> Any:
    """FAB as a search: at the class of this rank by the clean logits."""

    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, _: Draws) -> Tensor:
        return fab(model, x, y, eps, rivals(model(x), y)[:, rank], steps=steps)

    return search


def smallest(points: Tensor, normal: Tensor, gap: Tensor) -> list[float]:
    """min r: normal·d = −gap, |d| ≤ r, points + d in [0, 1], per row by a linear program; inf where there is none."""
    found = []
    for point, weight, need in zip(points.numpy(), normal.numpy(), gap.tolist(), strict=True):
        size = len(point)
        cost = np.append(np.zeros(size), 1.0)
        both = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
        bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
        solved = linprog(cost, both, np.zeros(2 * size), np.append(weight, 0.0)[None], [-need], bounds)
        found.append(solved.x[-1] if solved.success else np.inf)
    return found


def test_projection_is_the_smallest_change() -> None:
    torch.manual_seed(0)
    points, normal = torch.rand(60, 12, dtype=torch.double), torch.randn(60, 12, dtype=torch.double)
    points[:10, :6], points[5:15, 6:] = 0.0, 1.0
    normal[10:20, :5] = 0.0
    gap = torch.linspace(-4, 4, 60, dtype=torch.double)
    d = to_hyperplane(points, normal, gap)
    wanted = torch.tensor(smallest(points, normal, gap))
    reachable = wanted.isfinite()
    assert 5 < int(reachable.sum()) < 55
    torch.testing.assert_close(d.abs().amax(1)[reachable], wanted[reachable])
    torch.testing.assert_close((normal * d).sum(1)[reachable], -gap[reachable])
    assert bool(((points + d >= 0) & (points + d <= 1)).all())
    corner = torch.where(normal * gap[:, None] > 0, -points, 1 - points) * (normal != 0)
    torch.testing.assert_close(d[~reachable], corner[~reachable])


def test_projection_agrees_with_pyautoattacks() -> None:
    torch.manual_seed(0)
    points, normal = torch.rand(300, 64), torch.randn(300, 64) * (torch.rand(300, 64) > 0.2)
    points = (1.4 * points - 0.2).clamp(0, 1)  # many entries that cannot move
    gap = torch.linspace(-15, 15, 300)
    theirs = projection_linf(points, normal, (normal * points).sum(1) - gap)
    torch.testing.assert_close(to_hyperplane(points, normal, gap), theirs, rtol=1e-4, atol=1e-5)


def test_projection_of_nothing() -> None:
    points = torch.rand(3, 5)
    assert not to_hyperplane(points, torch.zeros(3, 5), torch.tensor([0.0, 1.0, -1.0])).any()
    assert not to_hyperplane(points, torch.randn(3, 5), torch.zeros(3)).any()


def test_linear_optimum() -> None:
    """A linear classifier of two classes is broken where its distance to the boundary, |gap| / ‖w‖₁, is below ε."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).requires_grad_(False)
    x = 0.3 + 0.4 * torch.rand(64, 1, 3, 4)
    logits = net(x)
    y, weight = logits.argmax(1), submodule(net, "1", nn.Linear).weight
    distance = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()
    eps = distance * torch.linspace(0.5, 1.5, 64)
    found = run_attack(aimed(steps=20), net, x, y, eps, Draws(0, "t", range(64)))
    broken = net(found).argmax(1) != y
    assert torch.equal(broken, eps > distance)
    assert torch.equal(found[~broken], x[~broken])


@pytest.mark.parametrize(("name", "radius"), [("cnn", 0.05), ("deq", 0.1)])
def test_agrees_with_pyautoattack(
    name: str, radius: float, cnn: nn.Module, trained: Trained, images: tuple[Tensor, Tensor]
) -> None:
    """FAB draws nothing, so the same images fall."""
    net, steps = cnn if name == "cnn" else trained(name), 20
    x, y = images[0][:150], images[1][:150]
    with torch.no_grad():
        right = net(x).argmax(1) == y
        x, y = x[right], y[right]
        theirs = FABAttack_PT(net, n_iter=steps, eps=radius, n_target_classes=1, targeted=True, device=x.device)
        other = net(theirs.perturb(x, y)).argmax(1) != y
    found = run_attack(aimed(steps), net, x, y, torch.full((len(x),), radius), Draws(0, "t", range(len(x))))
    with torch.no_grad():
        ours = net(found).argmax(1) != y
    assert 0.1 * len(y) < int(other.sum()) < 0.9 * len(y), "the radius tells nothing apart"
    assert int((ours != other).sum()) <= 0.01 * len(y)


@given(seed=st.integers(0, 10**6), low=st.floats(0, 0.05), high=st.floats(0, 1), dead=st.booleans())
@settings(max_examples=30, deadline=None)
def test_never_leaves_ball_or_range(seed: int, low: float, high: float, dead: bool) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    if dead:  # gradients that vanish
        submodule(net, "1", nn.Linear).bias.data.fill_(-100.0)
    x = torch.rand(10, 1, 3, 4).mul(1.4).sub(0.2).clamp(0, 1)
    eps, y = torch.linspace(low, high, 10), torch.randint(0, 4, (10,))
    found = run_attack(aimed(5, rank=seed % 3), net, x, y, eps, Draws(seed, "t", range(10)))
    assert bool((linf(x, found) <= eps + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_a_broken_example_costs_no_more(cnn: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images[0][:50], images[1][:50]
    seen: list[int] = []
    handle = cnn.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    run_attack(aimed(steps=50), cnn, x, y, torch.full((50,), 0.9), Draws(0, "t", range(50)))
    handle.remove()
    assert sum(seen) < 50 * 20


def test_aims_at_the_class_given(cnn: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Whatever the rank of the class aimed at, examples fall to it far more often than to one of nine by chance."""
    x, y = images[0][:60], images[1][:60]
    for rank in (0, 4):
        with torch.no_grad():
            aim = rivals(cnn(x), y)[:, rank]
            found = fab(cnn, x, y, torch.full((60,), 0.3), aim, steps=30)
            wrong, given = cnn(found).argmax(1) != y, cnn(found).argmax(1) == aim
        assert int(wrong.sum()) > 20 and int((wrong & given).sum()) > 0.3 * int(wrong.sum())

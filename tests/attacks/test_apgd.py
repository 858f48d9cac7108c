"""APGD: against the closed form on linear models, against pyautoattack, and within its bounds."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from bench.attacks.apgd import apgd, random_start, registered_apgd
from bench.attacks.core.contract import ContractError, linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import UNTARGETED, LossName, cross_entropy, dlr, dlr_targeted, margin
from bench.attacks.core.surrogate_views import GuideName
from tests.conftest import Trained
from tests.parts import submodule


def linear(classes: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).requires_grad_(False)


def in_middle(n: int, seed: int = 0) -> Tensor:
    """Images whose balls lie inside [0, 1]."""
    return 0.3 + 0.4 * torch.rand(n, 1, 3, 4, generator=torch.Generator().manual_seed(seed))


EVERY: list[LossName] = ["ce", "dlr", "margin", "dlr-targeted", "margin-targeted"]


@pytest.mark.parametrize(
    ("loss", "classes"), [*((loss, 2) for loss in EVERY), ("margin-targeted", 3), ("margin-targeted", 7)]
)
def test_linear_optimum(loss: LossName, classes: int) -> None:
    """The largest margin over the ball is max over classes of (w_j − w_y)·x + ε‖w_j − w_y‖₁ + b_j − b_y.

    With two classes every loss grows with it; with more, a maximum of several linear functions has local maxima,
    and only searches aimed at each class in turn are bound to find the largest.
    """
    net, x, eps = linear(classes), in_middle(64), torch.linspace(0.001, 0.2, 64)
    layer = submodule(net, "1", nn.Linear)
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        y = net(x).argmax(1)
    gaps = weight[None] - weight[y][:, None]
    flat = x.flatten(1)
    bound = (gaps * flat[:, None]).sum(2) + eps[:, None] * gaps.abs().sum(2) + bias[None] - bias[y][:, None]
    bound = bound.masked_fill(nn.functional.one_hot(y, classes).bool(), -torch.inf).amax(1)
    found = run_attack(
        partial(registered_apgd, loss=loss, steps=20, targets=9), net, x, y, eps, Draws(0, "t", range(64))
    )
    reached = margin(net(found), y)
    # Whoever can be broken is broken; and whoever cannot is driven to the optimum where the loss is the margin.
    assert 5 < int((bound > 0).sum()) < 59
    assert torch.equal(reached > 0, bound > 0)
    standing = bound <= 0
    torch.testing.assert_close(reached[standing], bound[standing], rtol=1e-3, atol=1e-4)


@given(
    seed=st.integers(0, 10**6),
    loss=st.sampled_from(EVERY),
    low=st.floats(0, 0.05),
    high=st.floats(0, 1),
    dead=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_never_leaves_ball_or_range(seed: int, loss: LossName, low: float, high: float, dead: bool) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    if dead:  # gradients that vanish, logits that overflow a softmax
        submodule(net, "1", nn.Linear).bias.data.fill_(-100.0)
        submodule(net, "3", nn.Linear).weight.data.mul_(1e8)
    x = torch.rand(10, 1, 3, 4).mul(1.4).sub(0.2).clamp(0, 1)
    eps = torch.linspace(low, high, 10)
    y = torch.randint(0, 4, (10,))
    found = run_attack(partial(registered_apgd, loss=loss, steps=5), net, x, y, eps, Draws(seed, "t", range(10)))
    assert bool((linf(x, found) <= eps + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("name", ["resnet20", "deq", "lyadeq"])
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_agrees_with_pyautoattack(name: str, loss: str, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    """From the same start on the same images it breaks the same ones."""
    net, x, y = trained(name), images[0][:120], images[1][:120]
    with torch.no_grad():
        right = net(x).argmax(1) == y
    x, y = x[right], y[right]
    radius, steps = 0.06 if name == "resnet20" else 0.1, 40
    eps = torch.full((len(x),), radius)
    start = random_start(x, eps, Draws(0, "t", range(len(x))), 0)
    if loss == "ce":
        theirs = APGDAttack(net, n_iter=steps, eps=radius, loss="ce", device=x.device)
        found = apgd(net, x, y, eps, start, cross_entropy, steps=steps)
        aim = None
    else:
        theirs = APGDAttack_targeted(net, n_iter=steps, eps=radius, n_target_classes=1, device=x.device)
        with torch.no_grad():
            aim = net(x).argsort(1)[:, -2]
        theirs.y_target, theirs.loss = aim, "dlr-targeted"
        found = apgd(net, x, y, eps, start, dlr_targeted, steps=steps, targets=aim)
    theirs.init_hyperparam(x)
    adversarial = theirs.attack_single_run(x, y, x_init=start)[3]
    with torch.no_grad():
        ours, other = net(found).argmax(1) != y, net(adversarial).argmax(1) != y
    assert 5 < int(other.sum()) < len(y) - 5, "the radius tells nothing apart"
    assert int((ours != other).sum()) <= 0.02 * len(y)


def test_losses_against_the_formula() -> None:
    logits, y = torch.randn(50, 6, dtype=torch.double), torch.randint(0, 6, (50,))
    target = (y + 1 + torch.randint(0, 5, (50,))) % 6
    for k in range(50):
        z, ranked = logits[k].tolist(), sorted(logits[k].tolist(), reverse=True)
        own, rest = z[y[k]], [v for j, v in enumerate(z) if j != y[k]]
        assert float(margin(logits, y)[k]) == pytest.approx(max(rest) - own)
        assert float(dlr(logits, y)[k]) == pytest.approx((max(rest) - own) / (ranked[0] - ranked[2]))
        wanted = (z[target[k]] - own) / (ranked[0] - (ranked[2] + ranked[3]) / 2)
        assert float(dlr_targeted(logits, y, target)[k]) == pytest.approx(wanted)
    for scaled in (dlr, partial(dlr_targeted, target=target)):
        torch.testing.assert_close(scaled(1e4 * logits + 3, y), scaled(logits, y))
    assert set(UNTARGETED) == {"ce", "dlr", "margin"}


def test_a_broken_example_costs_no_more(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    """Decided examples leave the batch: with a radius that breaks all at once, few forwards are made."""
    net, x, y = trained("fc-linear"), images[0][:50], images[1][:50]
    seen = []
    handle = net.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    eps = torch.full((50,), 0.9)
    apgd(net, x, y, eps, x, cross_entropy, steps=100)
    handle.remove()
    assert sum(seen) < 50 * 10


def test_result_is_the_best_seen(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    """More steps from the same start never end at a smaller loss among those that stand."""
    net, x, y = trained("deq"), images[0][:60], images[1][:60]
    eps = torch.full((60,), 0.01)
    ends = [apgd(net, x, y, eps, x, margin, steps=steps) for steps in (1, 8)]
    with torch.no_grad():
        clean, one, eight = margin(net(x), y), *(margin(net(end), y) for end in ends)
    assert bool((one >= clean - 1e-4).all()) and bool((eight >= clean - 1e-4).all())
    assert float(eight.mean()) > float(one.mean()) > float(clean.mean())


def test_guides(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    """A view's gradient is followed, the model decides; a model whose own gradient is cut still falls along a view."""
    net, x, y = trained("deq"), images[0][:80], images[1][:80]
    cut = copy.deepcopy(net)
    layer = submodule(cut, "body.equilibrium", nn.Module)
    inner = layer.forward
    layer.forward = lambda h: inner(h).detach() + 0 * h
    eps, draws = torch.full((80,), 0.2), Draws(0, "t", range(80))

    def standing(guide: GuideName) -> int:
        found = run_attack(partial(registered_apgd, steps=20, guide=guide), cut, x, y, eps, draws)
        with torch.no_grad():
            return int((cut(found).argmax(1) == y).sum())

    assert standing("own") > 60
    assert standing("unrolled") < 20
    with pytest.raises(ContractError, match="no view 'unrolled'"):
        run_attack(partial(registered_apgd, guide="unrolled"), trained("fc-linear"), x, y, eps, draws)

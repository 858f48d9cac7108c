"""I-FGSM and PGD: Eq. 14, torchattacks to the bit, and the closed form on a linear model."""

import inspect
from fractions import Fraction
from functools import partial

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from bench.attacks.core.contract import Search, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import eq14_steps, ifgsm, pgd
from tests.conftest import Trained
from tests.parts import submodule

EPS = 8 / 255


def test_eq14_in_exact_fractions() -> None:
    assert [eq14_steps(Fraction(n, 255)) for n in (2, 4, 6, 8)] == [2, 5, 7, 10]
    # min(24, 25): the other branch; and at least one step
    assert eq14_steps(Fraction(20, 255)) == 24
    assert eq14_steps(Fraction(0)) == 1
    assert eq14_steps(Fraction(1, 510)) == 1


def torchattacks_pgd(net: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """The peer, given our random start in place of its own draw."""
    attack = torchattacks.PGD(net, eps=EPS, alpha=1 / 255, steps=10, random_start=True)

    def given(tensor: Tensor, low: float, high: float) -> Tensor:
        return tensor.copy_(start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "uniform_", given)
        return attack(x, y)


@pytest.mark.parametrize("name", ["resnet20", "fc-linear", "deq", "lyadeq"])
def test_images_are_torchattacks_to_the_bit(name: str, trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net, x, y = trained(name), images[0][:64], images[1][:64]
    draws, eps = Draws(0, "digits", range(64)), torch.full((64,), EPS)
    ours = run_attack(ifgsm, net, x, y, eps, draws)
    peer = torchattacks.BIM(net, eps=EPS, alpha=1 / 255, steps=10)(x, y)
    assert torch.equal(ours, peer)
    ours = run_attack(pgd, net, x, y, eps, draws)
    peer = torchattacks_pgd(net, x, y, draws.unit(x.shape[1:]) * EPS)
    assert torch.equal(ours, peer)
    assert float((ours - x).abs().max()) > 0.9 * EPS  # they did attack


def test_the_random_start_is_ours_to_give() -> None:
    """The patch in this file stands where torchattacks draws; if it stops drawing so, the test above is empty."""
    assert ".uniform_(" in inspect.getsource(torchattacks.PGD.forward)


@pytest.mark.parametrize("search", [ifgsm, pgd])
def test_linear_model_reaches_the_closed_form(search: Search) -> None:
    """Two classes, linear: the optimum is x − ε·sign(w_y − w_other), clipped to [0, 1]."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x = torch.rand(20, 3, 2, 2)
    y = torch.randint(0, 2, (20,))
    eps = torch.linspace(0.01, 0.2, 20)
    weight = submodule(net, "1", nn.Linear).weight.detach()
    direction = (weight[1 - y] - weight[y]).view_as(x).sign()
    optimum = (x + eps.view(-1, 1, 1, 1) * direction).clamp(0, 1)

    found = run_attack(partial(search, steps=150), net, x, y, eps, Draws(0, "x", range(20)))
    torch.testing.assert_close(found, optimum, rtol=0, atol=1e-6)
    for images in (found, optimum):
        assert images.shape == x.shape


def test_zero_steps_is_the_start() -> None:
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    draws, eps = Draws(0, "x", range(3)), torch.full((3,), 0.1)
    assert torch.equal(ifgsm(net, x, y, eps, draws, steps=0), x)
    start = (x + 0.1 * draws.unit((1, 2, 2))).clamp(0, 1)
    assert torch.equal(pgd(net, x, y, eps, draws, steps=0), start)

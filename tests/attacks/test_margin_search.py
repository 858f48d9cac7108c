"""The margin search: against the closed form, for each example alone, and beyond where single searches stop."""

from functools import partial

import torch
from torch import Tensor, nn

from bench.attacks.apgd import registered_apgd
from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.core.losses import margin
from bench.attacks.gradient_sign import pgd
from bench.attacks.margin_search import NEAREST, margin_attack, search_margins, setting
from tests.attacks.test_apgd import in_middle, linear
from tests.conftest import Trained
from tests.parts import submodule


def bent(seed: int = 0) -> nn.Module:
    """A small network with local maxima."""
    torch.manual_seed(seed)
    hidden = nn.Linear(12, 60)
    nn.init.normal_(hidden.weight, std=3)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(60, 12)).requires_grad_(False).eval()


def test_linear_optimum() -> None:
    """max over classes of (w_j − w_y)·x + ε‖w_j − w_y‖₁ + b_j − b_y, reached and never passed."""
    net, x, eps = linear(12), in_middle(64), torch.linspace(0.001, 0.2, 64)
    with torch.no_grad():
        y = net(x).argmax(1)
    layer = submodule(net, "1", nn.Linear)
    weight, bias = layer.weight, layer.bias
    gaps = weight[None] - weight[y][:, None]
    bound = (gaps * x.flatten(1)[:, None]).sum(2) + eps[:, None] * gaps.abs().sum(2) + bias[None] - bias[y][:, None]
    bound = bound.masked_fill(nn.functional.one_hot(y, 12).bool(), -torch.inf).amax(1)
    found = run_attack(partial(margin_attack, steps=40, rounds=3, targets=11), net, x, y, eps, Draws(0, "t", range(64)))
    reached = margin(net(found), y)
    assert 5 < int((bound > 0).sum()) < 59 and torch.equal(reached > 0, bound > 0)
    standing = bound <= 0
    torch.testing.assert_close(reached[standing], bound[standing], rtol=1e-3, atol=1e-4)


def test_an_example_does_not_depend_on_its_batch_mates() -> None:
    net, x, eps = bent(), in_middle(40).double(), torch.full((40,), 0.05, dtype=torch.float64)
    net = net.double()
    y, draws = net(x).argmax(1), Draws(0, "t", range(40))
    together = search_margins(net, x, y, eps, draws, steps=20)
    for row in (0, 7, 31):
        alone = search_margins(net, x[[row]], y[[row]], eps[[row]], draws.of([row]), steps=20)
        assert int(alone.broken_in[0]) == int(together.broken_in[row])
        torch.testing.assert_close(alone.images[0], together.images[row])
    assert -1 in together.broken_in and 0 in together.broken_in


def test_rounds_say_what_they_found_and_spent() -> None:
    net, x, eps = bent(), in_middle(200), torch.full((200,), 0.05)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[:3] = (y[:3] + 1) % 12  # wrong at once
    found = search_margins(net, x, y, eps, Draws(0, "t", range(200)), steps=3, targets=6, rounds=8)
    broken = margin(net(found.images), y) > 0
    assert torch.equal(broken, found.broken_in >= 0) and (found.broken_in[:3] == 8).all()
    assert sum(found.yields) == int(broken.sum()) - 3 and torch.equal(found.images[:3], x[:3])
    assert sum(found.yields[1:]) > 0, "later rounds bring something"
    assert 0 < found.gradients[0] <= 197 * 6 * 3 and found.gradients[2] <= 197 * NEAREST * 3
    impatient = search_margins(net, x, y, eps, Draws(0, "t", range(200)), steps=3, targets=6, patience=1)
    assert sum(impatient.gradients) < sum(found.gradients)


def test_settings_vary_within_the_patience() -> None:
    five = [setting(number) for number in range(5)]
    assert {how.start for how in five} == {"corner", "uniform", "best"}
    assert {how.momentum for how in five} == {0.0, 0.75, 0.9} and {how.step for how in five} == {0.5, 1.0}


def test_it_breaks_what_pgd_and_apgd_break_and_more(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = trained("fc-linear"), (images[0][:25], images[1][:25])
    eps, draws = torch.full((25,), 18 / 255), Draws(0, "t", range(25))
    right = net(x).argmax(1) == y

    def broken(search: partial[Tensor]) -> Tensor:
        return right & (net(run_attack(search, net, x, y, eps, draws)).argmax(1) != y)

    mine = broken(partial(margin_attack, steps=40, rounds=3))
    short = broken(partial(pgd, steps=10, alpha=4 / 255))
    longer = broken(partial(registered_apgd, loss="margin-targeted", steps=30))
    assert not bool((short & ~mine).any()) and not bool((longer & ~mine).any())
    assert int(short.sum()) <= int(mine.sum()) < int(right.sum())


class Shy(nn.Module):
    """Right under no_grad, where it is judged; wrong for whoever takes gradients."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits.flip(1) if torch.is_grad_enabled() else logits


def test_what_only_the_gradients_forward_gets_wrong_is_not_broken() -> None:
    net, x = bent(), in_middle(20)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = search_margins(Shy(net), x, y, torch.full((20,), 1e-4), Draws(0, "t", range(20)), steps=5, rounds=2)
    assert not bool((found.broken_in >= 0).any())

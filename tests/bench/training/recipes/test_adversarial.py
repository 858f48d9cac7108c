"""The recipes' losses against formulas worked out by hand on models where they are known."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.registry import recipe
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.job_identity import make_job
from bench.training.loop import build_model
from bench.training.recipes.adversarial import pgd_at, trades
from bench.training.recipes.standard import TrainingStep
from tests.parts import gradient_of, submodule


def moment(seed: int = 0) -> TrainingStep:
    return TrainingStep(0.5, torch.Generator().manual_seed(seed))


def linear(classes: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes))


def batch(classes: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = 0.3 + 0.4 * torch.rand(6, 1, 2, 2, generator=generator)
    return x, torch.arange(6) % classes


def test_pgd_at_of_a_linear_model_is_the_loss_at_the_corner_of_the_ball() -> None:
    """With two classes the worst image of a linear model is x − ε·sign(w_y − w_other), in closed form."""
    net, (x, y) = linear(), batch()
    weight = submodule(net, "1", nn.Linear).weight.detach()
    corner = x - 0.1 * (weight[y] - weight[1 - y]).sign().view_as(x)
    loss = pgd_at(net, x, y, moment(), eps=0.1, step=0.06, steps=4)
    assert loss.item() == pytest.approx(functional.cross_entropy(net(corner), y).item(), rel=1e-5)


def test_one_step_of_pgd_at_starts_at_the_random_draw() -> None:
    net, (x, y) = linear(), batch()
    start = x + 0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1)
    weight = submodule(net, "1", nn.Linear).weight.detach()
    ahead = start - 0.02 * (weight[y] - weight[1 - y]).sign().view_as(x)
    expected = functional.cross_entropy(net((x + (ahead - x).clamp(-0.1, 0.1)).clamp(0, 1)), y)
    assert pgd_at(net, x, y, moment(), eps=0.1, step=0.02, steps=1).item() == pytest.approx(expected.item(), rel=1e-5)


def test_trades_is_its_published_loss() -> None:
    """Recomputed with probabilities and sums written out, and a gradient of the divergence by hand."""
    net, (x, y) = linear(3), batch(3)
    weight = submodule(net, "1", nn.Linear).weight.detach()
    p = net(x).detach().softmax(1)
    adversarial = x + 0.001 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        q = net(adversarial).detach().softmax(1)
        gradient = ((q - p) @ weight).view_as(x)  # of Σ p log(p / q) in the image
        ahead = adversarial + 0.02 * gradient.sign()
        adversarial = torch.minimum(torch.maximum(ahead, x - 0.05), x + 0.05).clamp(0, 1)
    q = net(adversarial).softmax(1)
    clean = net(x).softmax(1)
    divergence = (clean * (clean / q).log()).sum() / len(x)
    expected = -clean[torch.arange(6), y].log().mean() + 6 * divergence
    found = trades(net, x, y, moment(), eps=0.05, step=0.02, steps=5, beta=6.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = (torch.autograd.grad(loss, submodule(net, "1", nn.Linear).weight)[0] for loss in (found, expected))
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)


def test_trades_without_its_divergence_is_standard() -> None:
    net, (x, y) = linear(3), batch(3)
    found = trades(net, x, y, moment(), beta=0.0)
    assert found.item() == pytest.approx(functional.cross_entropy(net(x), y).item())


@pytest.mark.parametrize("name", ["trades", "pgd-at"])
def test_the_defaults_are_the_published_ones(name: str) -> None:
    published = {
        "trades": {"eps": 0.031, "step": 0.007, "steps": 10, "beta": 6.0},
        "pgd-at": {"eps": 0.031, "step": 0.00784, "steps": 7},
    }
    assert recipe[name].defaults() == published[name]
    assert recipe[name].resolve({"eps": "8/255"})["eps"] == 8 / 255
    with pytest.raises(BenchError, match="is negative"):
        recipe[name].resolve({"eps": "-0.1"})


class Watch(nn.Module):
    """A model that keeps what it is given, its mode, and whether its weights are being differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        self.seen: list[tuple[Tensor, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((x.detach(), self.training, submodule(self.inner, "0", nn.Conv2d).weight.requires_grad))
        return self.inner(x)


@pytest.mark.parametrize(("name", "outer"), [("trades", 2), ("pgd-at", 1)])
def test_the_search_stays_in_the_ball_in_eval_mode_and_leaves_the_model_alone(
    name: str, outer: int, images: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    net = Watch().train()
    net.inner[1].eval()  # a layer that someone froze stays frozen
    before = copy.deepcopy(net.inner.state_dict())
    x, y = images[0][:16], images[1][:16]
    loss = recipe[name].target(net, x, y, moment(), eps=0.1, step=0.05, steps=4)
    search, last = net.seen[:-outer], net.seen[-outer:]
    assert all(not training and not wants for _, training, wants in search)
    assert all(training and wants for _, training, wants in last)
    assert not net.inner[1].training
    final = last[-1][0]
    assert float((final - x).abs().max()) <= 0.1 + 1e-6
    assert float(final.min()) >= 0
    assert float(final.max()) <= 1
    assert float((final - x).abs().max()) > 0.09
    assert all(torch.equal(value, before[key]) for key, value in net.inner.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    loss.backward()
    assert all(float(gradient_of(p).abs().max()) > 0 for p in net.inner[0].parameters())


@pytest.mark.parametrize("name", ["trades", "pgd-at"])
def test_randomness_comes_from_the_moment_alone(name: str) -> None:
    net, (x, y) = linear(), batch()
    first = recipe[name].target(net, x, y, moment(), steps=1)
    torch.manual_seed(77)
    assert torch.equal(first, recipe[name].target(net, x, y, moment(), steps=1))
    assert not torch.equal(first, recipe[name].target(net, x, y, moment(1), steps=1))


@pytest.mark.parametrize("architecture", ["deq", "lyadeq", "resnet20"])
@pytest.mark.parametrize("name", ["trades", "pgd-at"])
def test_every_weight_learns(architecture: str, name: str, digits: Dataset, config: Config) -> None:
    job = make_job(parse_model(f"{architecture}+{name}"), digits, config, seed=0)
    net = build_model(job, digits).train()
    x, y = as_pixels(digits.x_train[:32]), digits.y_train[:32]
    job.recipe.target(net, x, y, moment(), **{**job.recipe_options, "steps": 2}).backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0]
    # ∇V of an untrained ICNN may be flat, and a bias in front of a batch normalisation has no effect.
    assert [n for n in dead if "lyapunov" not in n] == []


def test_training_does_not_depend_on_evaluation_options(digits: Dataset, config: Config) -> None:
    """The search runs in eval mode: what the weights' identity leaves out must not reach it."""
    one, two = (
        make_job(parse_model(f"deq[{options}]+trades"), digits, config, seed=0)
        for options in ("tol=0.1,max_iter=2", "tol=1e-7")
    )
    assert one.digest() == two.digest()
    assert one.training_options() == two.training_options()
    assert one.options != two.options

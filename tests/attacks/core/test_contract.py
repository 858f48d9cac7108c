"""The attack contract: what is enforced, what is restored, and that no attack leaves its ball."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.attacks.core.contract import ContractError, Search, linf, run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import ifgsm, pgd
from bench.registry import attack
from tests.parts import submodule

N = 5
DRAWS = Draws(0, "x", range(N))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N, 2, 2, 2, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    return x, torch.randint(0, 3, (N,), generator=generator)


SEARCHES = [ifgsm, pgd, attack["torchattacks:MIFGSM"].target, attack["torchattacks:FGSM"].target]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.lists(st.floats(0, 1), min_size=N, max_size=N), st.sampled_from(SEARCHES))
def test_no_attack_leaves_the_ball_or_the_cube(seed: int, radii: list[float], search: Search) -> None:
    x, y = batch(seed)
    eps = torch.tensor(radii)
    found = run_attack(search, net(seed), x, y, eps, DRAWS)
    assert bool((linf(x, found) <= eps + 1e-6).all())
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_projects_attacks_without_a_radius() -> None:
    x, y = batch()
    found = run_attack(attack["torchattacks:CW"].target, net(), x, y, torch.full((N,), 0.01), DRAWS)
    assert 0 < float(linf(x, found).max()) <= 0.01 + 1e-6


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda model, x, y, eps, draws: x + 2 * eps.view(-1, 1, 1, 1), r"left (the ball|\[0, 1\])"),
        (lambda model, x, y, eps, draws: (x + 2 * eps.view(-1, 1, 1, 1)).clamp(0, 1), "left the ball"),
        (lambda model, x, y, eps, draws: x - eps.view(-1, 1, 1, 1), r"left \[0, 1\]: min"),
        (lambda model, x, y, eps, draws: x * torch.nan, "not finite"),
        (lambda model, x, y, eps, draws: x[:2], "returned"),
    ],
)
def test_a_search_that_breaks_a_bound_is_told(broken: Search, message: str) -> None:
    x, y = batch()
    with pytest.raises(ContractError, match=message):
        run_attack(broken, net(), x, y, torch.full((N,), 0.1), DRAWS)


def test_images_outside_the_cube_are_refused_with_the_fix() -> None:
    x, y = batch()
    with pytest.raises(ContractError, match=r"min -0\.5, max .*normalisation inside the model"):
        run_attack(ifgsm, net(), x - 0.5 * (x == 0), y, torch.full((N,), 0.1), DRAWS)
    with pytest.raises(ContractError, match="max 255"):
        run_attack(ifgsm, net(), x * 255, y, torch.full((N,), 0.1), DRAWS)
    with pytest.raises(ContractError, match="eps must be"):
        run_attack(ifgsm, net(), x, y, torch.full((N,), -0.1), DRAWS)


def test_the_model_is_put_back_and_attacked_in_eval_mode() -> None:
    model = net().train()
    first, last = submodule(model, "1", nn.Linear), submodule(model, "4", nn.Linear)
    first.eval()
    last.bias.requires_grad_(False)
    seen = []
    x, y = batch()

    def search(given: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        seen.append((given.training, any(p.requires_grad for p in given.parameters())))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        run_attack(search, model, x, y, torch.full((N,), 0.1), DRAWS)
    assert seen == [(False, False)]
    assert model.training and not first.training and model[3].training
    assert first.weight.requires_grad and not last.bias.requires_grad


def test_the_search_cannot_change_the_callers_images() -> None:
    x, y = batch()
    kept = x.clone()

    def search(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws) -> Tensor:
        return x.mul_(0).add_(kept)

    run_attack(search, net(), x, y, torch.full((N,), 0.1), DRAWS)
    assert torch.equal(x, kept)


def test_draws_belong_to_the_example() -> None:
    whole = Draws(3, "data", range(10)).unit((2, 2))
    assert torch.equal(whole[4:7], Draws(3, "data", range(4, 7)).unit((2, 2)))
    assert whole.min() >= -1 and whole.max() < 1
    for other in (Draws(4, "data", range(10)), Draws(3, "other", range(10))):
        assert not torch.equal(whole, other.unit((2, 2)))
    assert not torch.equal(whole, Draws(3, "data", range(10)).unit((2, 2), restart=1))


def test_peers_do_not_touch_the_global_random_state() -> None:
    x, y = batch()
    model = net()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    run_attack(attack["torchattacks:PGD"].target, model, x, y, torch.full((N,), 0.1), DRAWS)
    assert torch.equal(torch.rand(1), expected)


def test_images_and_radii_that_have_gradients_of_their_own_are_attacked_as_any_others() -> None:
    """Theirs is no business of an attack, and a search may write over what it was given."""
    (x, y), eps = batch(), torch.full((N,), 0.1)
    for search in SEARCHES:
        expected = run_attack(search, net(), x, y, eps, DRAWS)
        found = run_attack(search, net(), x.clone().requires_grad_(), y, eps.clone().requires_grad_(), DRAWS)
        assert torch.equal(found, expected) and not found.requires_grad

"""What the certificate claims holds: against enumeration, stopped solvers, rounding and attacks."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd
from bench.models.equilibrium.methods import FixedPoint
from bench.models.equilibrium.solve import solve
from bench.models.mondeq import MonDEQ
from bench.models.monotone.enclosure import enclose, interval_cell, inverse_bound
from bench.models.monotone.interval import Bounds, worst_margins
from bench.models.monotone.layer import Monotone, MonotoneCell, Operator
from tests.models.mondeqs import make_mondeq, plain_images

EPS = 0.1
PLANE = plain_images(1, 1, 2)


def grid(x: Tensor, eps: float, side: int = 41) -> Tensor:
    """The ball around a 2-pixel image, cut to [0, 1], vertices and edges included."""
    axes = [torch.linspace(max(0.0, p - eps), min(1.0, p + eps), side, dtype=x.dtype) for p in x.flatten().tolist()]
    return torch.cartesian_prod(*axes).view(-1, 1, 1, 2)


@torch.no_grad()
def gap(net: nn.Module, x: Tensor, y: int) -> float:
    """The smallest z_y − z_j over images."""
    logits = net(x)
    others = logits.index_fill(1, torch.tensor([y]), -torch.inf)
    return float((logits[:, y] - others.amax(1)).min())


def test_no_enumerated_point_breaks_a_certificate() -> None:
    certified = 0
    for seed in range(12):
        net = make_mondeq(PLANE, seed, width=5, rescale=seed % 2 == 1)
        for x in torch.rand(4, 1, 1, 1, 2):
            y = net(x).argmax(1)
            for eps in (0.003, 0.01, 0.03, 0.1):
                if bool(net.certify(x, y, eps)):
                    certified += 1
                    assert gap(net, grid(x, eps), int(y)) > 0
    assert certified >= 20


def test_certificate_is_exact_where_everything_is_monotone() -> None:
    """With no negative weight the worst image is a vertex, and the bounds lose nothing."""
    for seed in range(5):
        net = make_mondeq(plain_images(1, 1, 2, classes=2), seed, width=4).double()
        with torch.no_grad():
            for parameter in (*net.body.injection.parameters(), net.body.monotone.free):
                parameter.abs_()
            net.body.head.weight[1] = -net.body.head.weight[0].abs_()
            x = torch.full((1, 1, 1, 2), 0.6, dtype=torch.double)
            y = torch.tensor([0])
            logits = net(x - 0.1)[0]
            net.body.head.bias[0] -= logits[0] - logits[1]  # so that the true radius is 0.1
        assert bool(net.certify(x, y, 0.0999))
        assert not bool(net.certify(x, y, 0.1001))
        assert gap(net, grid(x, 0.0999), 0) > 0 > gap(net, grid(x, 0.1001), 0)


def test_certificate_is_monotone_in_the_radius_and_takes_one_per_image() -> None:
    radii = torch.linspace(0, 0.3, 12)
    lost = 0
    for seed in range(4):
        net = make_mondeq(PLANE, seed, width=5)
        x = torch.rand(20, 1, 1, 2)
        y = net(x).argmax(1)
        table = torch.stack([net.certify(x, y, float(eps)) for eps in radii])
        assert bool((table[:-1] | ~table[1:]).all())
        lost += int((table[0] & ~table[-1]).sum())
        each = torch.stack([net.certify(x[i : i + 1], y[i : i + 1], float(radii[i % 12]))[0] for i in range(20)])
        assert torch.equal(net.certify(x, y, radii.repeat(2)[:20]), each)
        assert not bool(net.certify(x, (y + 1) % 3, 0.0).any())
    assert lost >= 20
    with pytest.raises(ValueError, match="0 or more"):
        net.certify(x, y, -0.1)


def test_uninflated_bounds_of_a_stopped_iteration_are_wrong_and_inflated_ones_right() -> None:
    """z = ReLU(z/2 + h) doubles h; from 0, one step of the iteration has only reached h."""
    operator = Operator(torch.eye(2, dtype=torch.double) / 2, (2,))
    injected = Bounds(torch.full((1, 2), 0.9, dtype=torch.double), torch.full((1, 2), 1.1, dtype=torch.double))
    cell, h = interval_cell(operator), torch.cat([injected.upper, injected.lower], 1)
    head = nn.Linear(2, 2).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, -1.0], [0.0, 0.0]]))
        head.bias.copy_(torch.tensor([3.5, 0.0]))  # class 0 while z₁ + z₂ < 3.5; at the centre it is 4
    y = torch.tensor([0])
    true = torch.full((1, 2), 2.0, dtype=torch.double)
    assert int(head(true).argmax()) == 1

    for steps in (1, 2, 3):
        z = solve(cell, torch.zeros_like(h), h, FixedPoint(), tol=1e-9, max_iter=steps).z
        upper, lower = z.chunk(2, 1)
        naive = worst_margins(head, Bounds(lower, upper), y)
        bounds = enclose(cell, injected, max_iter=steps)
        assert bool((bounds.lower <= 1.8).all())
        assert bool((bounds.upper >= 2.2).all())
        assert float(worst_margins(head, bounds, y)[0, 1].detach()) < 0
        if steps < 3:
            assert float(naive[0, 1].detach()) > 0  # "certified", and wrong
    tight = enclose(cell, injected)
    torch.testing.assert_close(tight.upper, torch.full_like(true, 2.2))
    torch.testing.assert_close(tight.lower, torch.full_like(true, 1.8))


@pytest.mark.parametrize("shape", [(9,), (2, 5, 5)])
def test_inverse_bound_is_at_least_the_inverse(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = Monotone(shape, 0.2, True).double()
    with torch.no_grad():
        layer.free.normal_()
        cell = interval_cell(layer.operator())
        n = torch.Size(shape).numel()
        absolute = cell.absolute(torch.eye(n, dtype=torch.double)).T
        reach = inverse_bound(cell, torch.zeros(1, n, dtype=torch.double))
    assert bool((reach - reach @ absolute.T >= 1).all())
    residual = torch.rand(n, dtype=torch.double)
    exact = torch.linalg.solve(torch.eye(n, dtype=torch.double) - absolute, residual)
    assert bool((residual.max() * reach[0] >= exact).all())


def test_no_inverse_means_no_certificate() -> None:
    operator = Operator(torch.eye(2, dtype=torch.double), (2,))  # ρ(|W|) = 1
    one, head = torch.ones(1, 2, dtype=torch.double), nn.Linear(2, 2).double()
    bounds = enclose(interval_cell(operator), Bounds(one, one), max_iter=3)
    assert not bool(bounds.upper.isfinite().any())
    assert not float(worst_margins(head, bounds, torch.tensor([0]))[0, 1].detach()) > 0


@pytest.mark.parametrize("steps", [1, 2, 4, 100])
@pytest.mark.parametrize("shape", [(9,), (2, 4, 4)])
def test_stopped_enclosures_hold_every_state(shape: tuple[int, ...], steps: int) -> None:
    torch.manual_seed(steps)
    layer = Monotone(shape, 0.2, False).double()
    n = torch.Size(shape).numel()
    with torch.no_grad():
        layer.free.normal_()
        operator = layer.operator()
        centre = torch.randn(1, n, dtype=torch.double)
        bounds = enclose(interval_cell(operator), Bounds(centre - 0.2, centre + 0.2), max_iter=steps)
        corners = centre + 0.2 * torch.randn(300, n, dtype=torch.double).sign()
        states = solve(
            MonotoneCell(operator), torch.zeros_like(corners), corners, FixedPoint(), tol=1e-13, max_iter=500
        )
    assert bool((bounds.lower <= states.z).all())
    assert bool((states.z <= bounds.upper).all())


def test_certificate_covers_what_a_loose_solver_hands_on() -> None:
    """The model's own states, stopped at a relative residual of 0.1, stay within the bounds of a ball of radius 0."""
    net = make_mondeq(plain_images(1, 4, 4), width=16, tol=0.1, solver="fixed-point")
    x = torch.rand(50, 1, 4, 4)
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        states = net.body.embed(net.normalize(x)).double()
        point = exact.normalize(x.double())
        bounds, _ = exact.body.sound_bounds(Bounds(point, point), torch.finfo(torch.float).eps)
        injected = exact.body.injection(point) + exact.body.bias
        strict = enclose(interval_cell(exact.body.monotone.operator()), Bounds(injected, injected))
    assert bool(((bounds.lower <= states) & (states <= bounds.upper)).all())
    assert not bool(((strict.lower <= states) & (states <= strict.upper)).all())


@pytest.mark.parametrize("form", ["dense", "3", "7"])
def test_float32_margins_within_the_ball_are_above_the_proven_ones(form: str) -> None:
    images = plain_images(2, 8, 8)
    net = make_mondeq(images, 3, form=form, width=4)
    x = torch.rand(3, 2, 8, 8)
    y = net(x).argmax(1)
    for eps in (0.0, 0.01):
        state, margins = net._proven(x, eps, y)
        for _ in range(30):
            inside = (x + eps * torch.rand_like(x).sub(0.5).sign()).clamp(0, 1)
            with torch.no_grad():
                logits = net(inside)
                z = net.body._state(net.body.injection(net.normalize(inside)) + net.body.bias)
            assert bool(((state.lower <= z) & (z <= state.upper)).all())
            assert bool((logits.gather(1, y[:, None]) - logits >= margins).all())
    if form != "7":  # at a point the proof is close to the logits; random deep nets widen roundings
        with torch.no_grad():
            gap = net._proven(x, 0.0, y)[1] - (net(x).gather(1, y[:, None]) - net(x))
        assert float(gap.abs().max()) < 0.05


def test_state_width_grows_with_the_radius() -> None:
    net = make_mondeq(plain_images(1, 4, 4), width=8)
    x = torch.rand(5, 1, 4, 4)
    widths = torch.stack([net.state_width(x, eps) for eps in (0.0, 0.01, 0.05)])
    assert widths.shape == (3, 5)
    assert float(widths[0].max()) < 1e-3
    assert bool((widths[1:] > widths[:-1]).all())


def test_certifying_changes_nothing_in_the_model() -> None:
    net = make_mondeq(plain_images(1, 4, 4), width=8).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.certify(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 0.1)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_pgd_breaks_no_certified_digit(trained_digits: MonDEQ, digit_images: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:200] for part in digit_images)
    certified = trained_digits.certify(x, y, EPS)
    assert float(certified.float().mean()) > 0.5
    eps = torch.full((len(x),), EPS)
    broken = torch.zeros(len(x), dtype=torch.bool)
    for restart in range(3):
        search = partial(pgd, steps=30, alpha=EPS / 8, restart=restart)
        adversarial = run_attack(search, trained_digits, x, y, eps, Draws(0, "digits", range(len(x))))
        broken |= trained_digits(adversarial).argmax(1) != y
    assert not bool((certified & broken).any())
    assert bool(broken.any())
    assert bool((certified | broken).float().mean() > 0.8)  # the certificate is not vacuous

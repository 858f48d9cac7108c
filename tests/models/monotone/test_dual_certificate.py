"""The dual certificate of a monotone DEQ: sound for the model in float32, and never less than the interval one."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd
from bench.models.mondeq import MonDEQ
from bench.models.monotone.dual_certificate import proven_margins, relaxation
from bench.models.monotone.interval import Bounds, propagate
from bench.registry import model
from tests.models.mondeqs import make_mondeq, plain_images
from tests.models.monotone.test_certificate import PLANE, gap, grid


def corners(x: Tensor, eps: float) -> Tensor:
    """Of the balls around images, one corner each, cut to [0, 1]."""
    return (x + eps * torch.rand_like(x).sub(0.5).sign()).clamp(0, 1)


def test_no_enumerated_point_breaks_it_and_it_proves_more() -> None:
    proven = {"IBP": 0, "dual": 0}
    for seed in range(12):
        net = make_mondeq(PLANE, seed, width=5, rescale=seed % 2 == 1)
        x = torch.rand(6, 1, 1, 2)
        y = net(x).argmax(1)
        for eps in (0.03, 0.1, 0.3):
            found = {name: prove(x, y, eps) for name, prove in net.certificates.items()}
            assert not bool((found["IBP"] & ~found["dual"]).any())
            for i in found["dual"].nonzero()[:, 0].tolist():
                assert gap(net, grid(x[i : i + 1], eps), int(y[i])) > 0
            for name in proven:
                proven[name] += int(found[name].sum())
    assert proven["dual"] >= proven["IBP"] + 10 > 20


@pytest.mark.parametrize("form", ["dense", "3"])
def test_float32_margins_within_the_ball_are_above_the_proven_ones(form: str) -> None:
    net = make_mondeq(plain_images(2, 8, 8), 3, form=form, width=4)
    x = torch.rand(3, 2, 8, 8)
    y = net(x).argmax(1)
    for eps in (0.0, 0.01, 0.03):
        margins, interval = net._proven_dual(x, eps, y), net._proven(x, eps, y)[1]
        assert bool((margins >= interval).all())
        for _ in range(40):
            with torch.no_grad():
                logits = net(corners(x, eps))
            assert bool((logits.gather(1, y[:, None]) - logits >= margins).all())
    assert bool((margins > interval + 1e-3).any())


@pytest.mark.parametrize("form", ["dense", "3"])
@pytest.mark.parametrize("tol", [1e-6, 1e-2])
def test_what_the_model_computes_is_what_the_bound_is_of(form: str, tol: float) -> None:
    """Its q and p in float32 differ from the affine maps in float64 by no more than the limits; and do differ."""
    eps = 0.02
    net = make_mondeq(plain_images(2, 8, 8), 1, form=form, width=8, tol=tol, solver="fixed-point")
    x = torch.rand(20, 2, 8, 8)
    exact, ball, slack = net._rounded_ball(x, eps)
    with torch.no_grad():
        network, boxes, _ = relaxation(exact.body, ball, slack)
        for _ in range(20):
            seen = net.normalize(corners(x, eps))
            q = net.body.injection[:-1](seen).flatten(1).double()
            z = net.body._state(net.body.injection(seen) + net.body.bias).flatten(1).double()
            at = seen.flatten(1).double()
            assert bool(((boxes.x.lower <= at) & (at <= boxes.x.upper)).all())
            assert bool(((boxes.q.lower <= q) & (q <= boxes.q.upper)).all())
            assert bool(((q - network.inject(at) - network.shift).abs() <= boxes.limit_e).all())
            p = network.recur(z) + torch.relu(q) + network.bias
            assert bool((torch.relu(p - boxes.limit_f) <= z).all())
            assert bool((z <= torch.relu(p + boxes.limit_f)).all())
    off = (z - torch.relu(p)).abs().amax()
    assert float(off) > (1e-4 if tol == 1e-2 else 0), "the solver leaves something to allow for"
    assert float(boxes.limit_f.amax()) < (1.0 if tol == 1e-2 else 1e-3)


@pytest.mark.parametrize(("form", "width"), [("dense", 6), ("3", 2)])
def test_the_affine_maps_are_the_models(form: str, width: int) -> None:
    net = make_mondeq(plain_images(2, 4, 4), 2, form=form, width=width, rescale=True).double()
    x = torch.rand(5, 2, 4, 4, dtype=torch.double)
    with torch.no_grad():
        at = net.normalize(x)
        network, _, _ = relaxation(net.body, Bounds(at, at), 1e-7)
        q = network.inject(at.flatten(1)) + network.shift
        torch.testing.assert_close(q, net.body.injection[:-1](at).flatten(1))
        h = (net.body.injection(at) + net.body.bias).flatten(1)
        torch.testing.assert_close(torch.relu(q) + network.bias, h)
        z = torch.rand_like(h)
        torch.testing.assert_close(network.recur(z), net.body.monotone.operator()(z))


def test_rounding_of_a_convolutions_tail_is_allowed_for() -> None:
    """Margins proven at a point, of a network in float32, where interval bounds are all but exact."""
    net = make_mondeq(plain_images(1, 8, 8), 5, form="3", width=3)
    x = torch.rand(10, 1, 8, 8)
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        y = net(x).argmin(1)  # so that every margin is negative, and searched for
        wanted = torch.ones(len(x), dtype=torch.bool)
        ball, slack = net._rounded_ball(x, 0.0)[1:]
        proven = proven_margins(exact.body, ball, y, wanted, slack)
        logits = net(x)
        margins = logits.gather(1, y[:, None]) - logits
        features = propagate(exact.body.tail, exact.body.sound_bounds(ball, slack)[0], slack)
    assert features.lower.shape == (10, 12)
    assert bool((proven <= margins).all())
    assert float((margins - proven).max()) < 0.05


@pytest.mark.parametrize("eps", [0.1, 0.15])
def test_pgd_breaks_no_image_that_it_certifies(
    eps: float, trained_digits: MonDEQ, digit_images: tuple[Tensor, Tensor]
) -> None:
    x, y = (part[:200] for part in digit_images)
    interval, dual = trained_digits.certify(x, y, eps), trained_digits.certify_dual(x, y, eps)
    assert bool((dual | ~interval).all()) and int(dual.sum()) >= int(interval.sum()) + (eps > 0.1)
    broken = broken_by_pgd(trained_digits, x, y, eps)
    assert bool(broken.any()) and not bool((dual & broken).any())
    assert float((dual | broken).float().mean()) > 0.8


def test_certified_images_stay_right_however_exactly_the_solver_works(
    trained_digits: MonDEQ, digit_images: tuple[Tensor, Tensor]
) -> None:
    """What is certified for a solver that stops early is attacked with it, and with more exact ones."""
    x, y = (part[:100] for part in digit_images)
    eps, state = 0.1, trained_digits.state_dict()
    certified = {}
    for tol in (1e-2, 1e-4, 1e-6):
        net = retuned(trained_digits, tol=tol)
        net.load_state_dict(state)
        certified[tol] = net.certify_dual(x, y, eps)
        assert not bool((certified[tol] & broken_by_pgd(net, x, y, eps)).any())
        for other in (1e-3, 1e-7):
            closer = retuned(trained_digits, tol=min(other, tol))
            closer.load_state_dict(state)
            assert not bool((certified[tol] & broken_by_pgd(closer, x, y, eps)).any())
    assert not bool((certified[1e-2] & ~certified[1e-6]).any())
    assert 0 < int(certified[1e-2].sum()) < int(certified[1e-6].sum()), "an early stop costs certificates"


def retuned(net: MonDEQ, tol: float) -> MonDEQ:
    """The same architecture with another tolerance of its solver, in eval mode, untrained."""
    options = model["ibp-mondeq"].resolve({"eps": 0.1, "width": 64, "tol": tol})
    return model["ibp-mondeq"].target(plain_images(1, 8, 8, classes=10), **options).eval()


def broken_by_pgd(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """By any of three restarts of 30 steps, (N,)."""
    radii, broken = torch.full((len(x),), eps), torch.zeros(len(x), dtype=torch.bool)
    for restart in range(3):
        search = partial(pgd, steps=30, alpha=eps / 8, restart=restart)
        adversarial = run_attack(search, net, x, y, radii, Draws(0, "digits", range(len(x))))
        broken |= net(adversarial).argmax(1) != y
    return broken


def test_it_takes_a_radius_per_image_and_refuses_one_below_zero() -> None:
    net = make_mondeq(PLANE, 1, width=5)
    x = torch.rand(20, 1, 1, 2)
    y = net(x).argmax(1)
    radii = torch.linspace(0, 0.3, 20)
    each = torch.cat([net.certify_dual(x[i : i + 1], y[i : i + 1], float(radii[i])) for i in range(20)])
    assert torch.equal(net.certify_dual(x, y, radii), each)
    assert 0 < int(each.sum()) < 20
    other = (y + 1) % 3
    assert not bool(net.certify_dual(x, other, 0.0).any())
    # What is misclassified is not searched for.
    assert torch.equal(net._proven_dual(x, 0.1, other), net._proven(x, 0.1, other)[1])
    with pytest.raises(ValueError, match="0 or more"):
        net.certify_dual(x, y, -0.1)


def test_it_changes_nothing_in_the_model() -> None:
    net = make_mondeq(plain_images(1, 4, 4), width=8).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.certify_dual(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 0.1)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_where_it_is_offered() -> None:
    images = plain_images(1, 8, 8)
    for name in ("mondeq", "ibp-mondeq"):
        for form, names in (("dense", ["IBP", "dual"]), ("3", ["IBP", "dual"]), ("7", ["IBP"])):
            net = model[name].target(images, **model[name].resolve({"form": form, "width": 2})).eval()
            assert list(net.certificates) == names
            assert net.certificates["IBP"] == net.certify
    with pytest.raises(ValueError, match="affine"):
        net.certify_dual(torch.rand(1, 1, 8, 8), torch.tensor([0]), 0.1)

"""The dual bound of c·z: below the truth for any multipliers, at the linear program's optimum for the best."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.models.monotone.dual_bound import Boxes, Network, dual_value, prove, proven_value, start
from bench.models.monotone.interval import Bounds
from bench.models.monotone.layer import Monotone, Operator
from tests.models.monotone.dual_problems import by_linear_program, by_patterns, equilibrium, make_boxes, make_network

HIGHS = 1e-7  # how far HiGHS may leave the feasible set
FAR = torch.tensor([torch.inf], dtype=torch.double)  # a search for more than this goes on to its end


def search(network: Network, boxes: Boxes, c: Tensor, **options: int) -> float:
    return float(prove(network, boxes, c[None], FAR, **options)[0])


def inside(boxes: Boxes, count: int) -> Tensor:
    """Points of one image's box, every other one a corner."""
    share = torch.rand(count, boxes.x.lower.shape[1], dtype=torch.double)
    share[::2] = share[::2].round()
    return boxes.x.lower + share * (boxes.x.upper - boxes.x.lower)


@pytest.mark.parametrize(("n", "seeds"), [(2, 6), (3, 3), (4, 1)])
def test_no_pattern_of_active_units_goes_below_it(n: int, seeds: int) -> None:
    gaps, switching = [], 0
    for seed in range(seeds):
        network = make_network(seed, n, 2)
        for eps in (0.01, 0.5):
            boxes = make_boxes(network, torch.randn(1, 2, dtype=torch.double), eps)
            c = torch.randn(n, dtype=torch.double)
            exact, bound = by_patterns(network, boxes, c), search(network, boxes, c)
            sampled = float((equilibrium(network, inside(boxes, 500)) @ c).min())
            assert bound - HIGHS <= exact <= sampled + HIGHS
            gaps.append(exact - bound)
            switching += int(((boxes.p.lower < 0) & (boxes.p.upper > 0)).sum())
    assert switching > 0, "nothing is relaxed"
    assert min(gaps) < 1e-3, "where no unit switches the bound is exact"


def test_the_search_reaches_the_optimum_of_the_linear_program() -> None:
    gained = 0
    for seed in range(3):
        network = make_network(seed, 12, 6)
        for eps in (0.05, 0.2):
            boxes = make_boxes(network, torch.randn(6, 6, dtype=torch.double), eps)
            c, one = torch.randn(6, 12, dtype=torch.double), torch.arange(6)[:, None]
            found_by_highs = [by_linear_program(network, boxes.take(one[k]), c[k]) for k in range(6)]
            optima = torch.tensor(found_by_highs, dtype=torch.double)
            found = {steps: prove(network, boxes, c, FAR.expand(6), steps=steps)[0] for steps in (0, 400, 2_000)}
            short = {steps: (optima - bounds) / optima.abs().clamp_min(1) for steps, bounds in found.items()}
            assert min(float(gap.min()) for gap in short.values()) >= -HIGHS
            assert float(short[400].max()) <= 1e-2
            assert float(short[2_000].max()) <= 1e-3
            gained += int((short[0] > 0.05).sum())
    assert gained >= 10, "the start alone is at most of them already"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 1.0), st.floats(0.0, 10.0), st.floats(0.0, 0.3))
def test_any_multipliers_give_a_bound(seed: int, eps: float, size: float, limit: float) -> None:
    network = make_network(seed, 6, 4)
    boxes = make_boxes(network, torch.randn(1, 4, dtype=torch.double), eps, limit=limit)
    c, lam, mu = (s * torch.randn(1, 6, dtype=torch.double) for s in (1.0, size, size))
    x = inside(boxes, 200)
    e, f = (limit * torch.randn(200, 6, dtype=torch.double).sign() for _ in range(2))
    least = float((equilibrium(network, x, e, f) @ c[0]).min())
    assert float(proven_value(network, boxes, c, lam, mu)) <= least + 1e-9
    lam, mu = start(network, boxes, c)
    assert float(proven_value(network, boxes, c, lam, mu)) <= least + 1e-9


def test_disturbances_are_allowed_for() -> None:
    """With every unit active the bound is exact, so one that ignores the limits lies above what they let happen."""
    n, limit = 5, 0.01
    network = make_network(1, n, 3)
    network = Network(network.inject, network.shift + 20, network.recur, network.bias)
    x, c = torch.zeros(1, 3, dtype=torch.double), torch.randn(n, dtype=torch.double)
    boxes = make_boxes(network, x, 0.0, limit=limit)
    assert bool((boxes.p.lower > 0).all())
    # f shifts z by (I − W)⁻¹f, and so does e, whose ReLU is active.
    pull = torch.linalg.solve((torch.eye(n, dtype=torch.double) - network.recur.weight).T, c)
    worst = float(equilibrium(network, x, -limit * pull.sign(), -limit * pull.sign())[0] @ c)
    bound = search(network, boxes, c)
    assert worst - 1e-3 < bound <= worst
    blind = Boxes(boxes.x, boxes.q, boxes.p, 0 * boxes.limit_e, 0 * boxes.limit_f)
    assert search(network, blind, c) > worst + 1e-3


def test_its_own_rounding_is_subtracted() -> None:
    """In float32 the plain value is above the exact one about as often as below; the proven one never is."""
    above = 0
    for seed in range(40):
        network = make_network(seed, 30, 20)
        boxes = make_boxes(network, torch.randn(1, 20, dtype=torch.double), 0.3)
        quick, near = network.to(torch.float), boxes.to(torch.float)
        c, lam, mu = (torch.randn(1, 30) for _ in range(3))
        # The same numbers, each of float32, in arithmetic without rounding to speak of.
        exact, _, _ = dual_value(quick.to(torch.double), near.to(torch.double), c.double(), lam.double(), mu.double())
        assert float(proven_value(quick, near, c, lam, mu)) <= float(exact)
        above += int(float(dual_value(quick, near, c, lam, mu)[0]) > float(exact))
    assert above > 5


def test_its_supergradients_are_central_differences() -> None:
    network = make_network(3, 7, 5)
    boxes = make_boxes(network, torch.randn(1, 5, dtype=torch.double), 0.2, limit=0.05)
    c, lam, mu, along, across = (torch.randn(1, 7, dtype=torch.double) for _ in range(5))
    _, up, sideways = dual_value(network, boxes, c, lam, mu)
    step = 1e-7
    ahead, _, _ = dual_value(network, boxes, c, lam + step * along, mu + step * across)
    behind, _, _ = dual_value(network, boxes, c, lam - step * along, mu - step * across)
    slope = (up * along).sum() + (sideways * across).sum()
    torch.testing.assert_close((ahead - behind)[0] / (2 * step), slope, rtol=1e-5, atol=1e-6)


def test_rows_are_searched_apart_and_end_when_they_suffice() -> None:
    network = make_network(5, 8, 4)
    x = torch.randn(6, 4, dtype=torch.double)
    boxes, c = make_boxes(network, x, 0.2), torch.randn(6, 8, dtype=torch.double)
    whole, multipliers = prove(network, boxes, c, FAR.expand(6))
    torch.testing.assert_close(proven_value(network, boxes, c, *multipliers.chunk(2, 1)), whole)
    assert bool((whole > prove(network, boxes, c, FAR.expand(6), steps=0)[0] + 0.01).any())
    alone = [search(network, boxes.take(torch.tensor([i])), c[i]) for i in range(6)]
    torch.testing.assert_close(torch.tensor(alone, dtype=torch.double), whole, atol=2e-3, rtol=0)
    above = whole - torch.tensor([0.05, -0.05] * 3, dtype=torch.double)
    found, _ = prove(network, boxes, c, above)
    assert (found > above).tolist() == [True, False] * 3


def test_bounds_that_are_not_finite_prove_nothing() -> None:
    network = make_network(0, 3, 2)
    boxes = make_boxes(network, torch.zeros(1, 2, dtype=torch.double), 0.1)
    endless = Boxes(boxes.x, boxes.q, Bounds(boxes.p.lower, boxes.p.upper + torch.inf), boxes.limit_e, boxes.limit_f)
    c, never = torch.ones(1, 3, dtype=torch.double), torch.tensor([-1e9], dtype=torch.double)
    bounds, _ = prove(network, endless, c, never, steps=20)
    assert not bool((bounds > never).any())


@pytest.mark.parametrize("shape", [(9,), (2, 5, 4)])
def test_an_operators_adjoint(shape: tuple[int, ...]) -> None:
    layer = Monotone(shape, 0.5, True).double()
    weights = [layer.operator(), Operator(torch.randn(5, *layer.free.shape[1:], dtype=torch.double), shape)]
    for operator in weights:
        z = torch.randn(3, torch.Size(shape).numel(), dtype=torch.double)
        image = operator(z)
        y = torch.randn_like(image)
        torch.testing.assert_close((image * y).sum(1), (z * operator.adjoint(y)).sum(1))

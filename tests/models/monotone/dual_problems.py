"""Small monotone networks for the dual bound, and what it is compared with: enumeration and linear programs."""

import itertools
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from bench.models.monotone.dual_bound import Boxes, Network
from bench.models.monotone.enclosure import enclose_input, interval_cell
from bench.models.monotone.interval import Bounds
from bench.models.monotone.layer import Monotone, Operator


def make_network(seed: int, n: int, d: int, m: float = 0.3) -> Network:
    """Dense, in float64, with weights that make units switch."""
    torch.manual_seed(seed)
    layer = Monotone((n,), m, False).double()
    torch.nn.init.normal_(layer.free)
    inject = Operator(torch.randn(n, d, dtype=torch.double), (d,))
    shift, bias = torch.randn(1, n, dtype=torch.double), 0.3 * torch.randn(1, n, dtype=torch.double)
    return Network(inject, shift, Operator(layer.operator().weight.detach(), (n,)), bias)


def make_boxes(network: Network, x: Tensor, eps: float, *, limit: float = 0.0) -> Boxes:
    """Around images x, (N, d); both limits the same for every unit."""
    box = Bounds(x - eps, x + eps)
    centre, spread = network.inject(x) + network.shift, network.inject.absolute()(torch.full_like(x, eps))
    q = Bounds(centre - spread - limit, centre + spread + limit)
    h = q.map(torch.relu).map(lambda t: t + network.bias).widened(torch.full_like(q.lower, limit))
    p = enclose_input(interval_cell(network.recur), h)
    limits = torch.full_like(q.lower, limit)
    return Boxes(box, q, p, limits, limits)


def equilibrium(
    network: Network, x: Tensor, e: Tensor | float = 0.0, f: Tensor | float = 0.0, steps: int = 300
) -> Tensor:
    """z for images x, (N, n), with disturbances e of q and f of p."""
    h = torch.relu(network.inject(x) + network.shift + e) + network.bias + f
    z = torch.zeros_like(h)
    for _ in range(steps):
        z = torch.relu(network.recur(z) + h)
    return z


def by_patterns(network: Network, boxes: Boxes, c: Tensor) -> float:
    """The exact least c·z over one image's box: a linear program in x for every pattern of active units.

    With patterns S of q and T of p, p = (I − W T)⁻¹(S(Ax + d) + b) is affine in x.
    """
    a, w = network.inject.weight.numpy(), network.recur.weight.numpy()
    d, b, weights = network.shift[0].numpy(), network.bias[0].numpy(), c.numpy()
    box = list(zip(boxes.x.lower[0].tolist(), boxes.x.upper[0].tolist(), strict=True))
    n, least = len(d), np.inf
    for s in itertools.product([0.0, 1.0], repeat=n):
        active = np.array(s)
        for t in itertools.product([0.0, 1.0], repeat=n):
            on = np.array(t)
            solved = np.linalg.inv(np.eye(n) - w * on)
            slope, at_zero = solved @ (active[:, None] * a), solved @ (active * d + b)
            sign_q, sign_p = 2 * active - 1, 2 * on - 1
            found = linprog(
                (weights * on) @ slope,
                A_ub=np.concatenate([-sign_q[:, None] * a, -sign_p[:, None] * slope]),
                b_ub=np.concatenate([sign_q * d, sign_p * at_zero]),
                bounds=box,
                method="highs",
            )
            if found.status == 0:
                least = min(least, found.fun + (weights * on) @ at_zero)
    return float(least)


def by_linear_program(network: Network, boxes: Boxes, c: Tensor) -> float:
    """The least c·z of one image where each ReLU is relaxed to its triangle, by HiGHS; variables x, q, r, p, z."""
    a, w = network.inject.weight.numpy(), network.recur.weight.numpy()
    n, k = a.shape
    eye, none = np.eye(n), np.zeros((n, n))
    equal = np.concatenate(
        [
            np.concatenate([-a, eye, none, none, none], 1),
            np.concatenate([np.zeros((n, k)), none, -eye, eye, -w], 1),
        ]
    )
    known = np.concatenate([network.shift[0].numpy(), network.bias[0].numpy()])
    rows: list[Any] = []
    right: list[float] = []
    for bounds, first in ((boxes.q, k), (boxes.p, k + 2 * n)):
        for unit, (low, high) in enumerate(zip(bounds.lower[0].tolist(), bounds.upper[0].tolist(), strict=True)):
            before, after = np.zeros((2, k + 4 * n))
            before[first + unit], after[first + n + unit] = 1, 1
            slope = (max(high, 0) - max(low, 0)) / (high - low)
            rows += [before - after, -after, after - slope * before]
            right += [0, 0, max(low, 0) - slope * low]
    pairs = [(boxes.x, k), (boxes.q, n), (None, n), (boxes.p, n), (None, n)]
    limits: list[tuple[float | None, float | None]] = []
    for known_bounds, size in pairs:
        if known_bounds is None:
            limits += [(None, None)] * size
        else:
            limits += list(zip(known_bounds.lower[0].tolist(), known_bounds.upper[0].tolist(), strict=True))
    cost = np.concatenate([np.zeros(k + 3 * n), c.numpy()])
    found = linprog(cost, A_ub=np.array(rows), b_ub=right, A_eq=equal, b_eq=known, bounds=limits, method="highs")
    assert found.status == 0
    return float(found.fun)

"""Lower bounds of a linear read-out of a monotone DEQ over a box of images, by Lagrange duality.

The network is q = Ax + d + e, r = ReLU(q), p = Wz + r + b + f, z = ReLU(p), with x in a box, and |e| ≤ E, |f| ≤ F for
rounding and a solver's tolerance. For any multipliers λ of p and μ of q

    c·z ≥ Σᵢ min [(c − Wᵀλ)ᵢ zᵢ + λᵢpᵢ] + Σⱼ min [μⱼqⱼ − λⱼrⱼ] + min over x of [−μ·Ax] − λ·b − μ·d − |λ|·F − |μ|·E,

each minimum over one unit with bounds l ≤ q, p ≤ u known beforehand: it is attained at l, at u, or, where l < 0 < u, at
the kink 0. So the fixed point is never solved for, and whatever a search for λ and μ does, its result is a bound. The
best one is the optimum of the linear program that relaxes each ReLU to its triangle (Wong & Kolter 2018; Dvijotham et
al. 2018, there for feed-forward networks).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.models.monotone.interval import Bounds, rounding
from bench.models.monotone.layer import Operator

CHORDS = 40  # applications of the fixed-point equation of the start
STEPS = 400
PERIOD = 10  # steps between two looks at which bounds suffice
BETAS = (0.9, 0.999)  # Adam's


@dataclass(frozen=True)
class Network:
    """The affine maps: q = inject(x) + shift, p = recur(z) + ReLU(q) + bias; vectors are flattened, (1, n)."""

    inject: Operator
    shift: Tensor
    recur: Operator
    bias: Tensor

    def to(self, dtype: torch.dtype) -> "Network":
        inject, recur = (replace(part, weight=part.weight.to(dtype)) for part in (self.inject, self.recur))
        return Network(inject, self.shift.to(dtype), recur, self.bias.to(dtype))


@dataclass(frozen=True)
class Boxes:
    """What is known per image: bounds of x, (N, d), q and p, (N, n), and the limits E and F, (N, n)."""

    x: Bounds
    q: Bounds
    p: Bounds
    limit_e: Tensor
    limit_f: Tensor

    def take(self, rows: Tensor) -> "Boxes":
        """The boxes of some images, one of them perhaps more than once."""
        x, q, p = (part.map(lambda t: t[rows]) for part in (self.x, self.q, self.p))
        return Boxes(x, q, p, self.limit_e[rows], self.limit_f[rows])

    def to(self, dtype: torch.dtype) -> "Boxes":
        x, q, p = (part.map(lambda t: t.to(dtype)) for part in (self.x, self.q, self.p))
        return Boxes(x, q, p, self.limit_e.to(dtype), self.limit_f.to(dtype))


def dual_value(network: Network, boxes: Boxes, c: Tensor, lam: Tensor, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bound of c·z, (K,), and its supergradients in λ and μ, (K, n); up to rounding in the tensors' type.

    Args:
        boxes: K of them, one a row of c.
        c: read-outs, (K, n).
        lam, mu: multipliers, (K, n).
    """
    p = _minimiser(c - network.recur.adjoint(lam), lam, boxes.p)
    q = _minimiser(-lam, mu, boxes.q)
    x = torch.where(network.inject.adjoint(mu) > 0, boxes.x.upper, boxes.x.lower)
    z = torch.relu(p)
    up = p - network.recur(z) - torch.relu(q) - network.bias - boxes.limit_f * lam.sign()
    across = q - network.inject(x) - network.shift - boxes.limit_e * mu.sign()
    return (c * z).sum(1) + (lam * up).sum(1) + (mu * across).sum(1), up, across


def proven_value(network: Network, boxes: Boxes, c: Tensor, lam: Tensor, mu: Tensor) -> Tensor:
    """The bound of c·z, (K,), less all of its own rounding in the tensors' type, for what is given taken as exact.

    Two things are rounded: the sums whose minimisers are chosen, so that another than the least may be taken, and the
    sum at those. Both errors are at most some units of the last place, as many as there are terms, of the sum of the
    terms' absolute values, and `rounding` has room for both.
    """
    value, _, _ = dual_value(network, boxes, c, lam, mu)
    z, q, x = torch.relu(boxes.p.upper), boxes.q.magnitude(), boxes.x.magnitude()
    size = (c.abs() * z).sum(1)
    of_p = boxes.p.magnitude() + network.recur.absolute()(z) + q + network.bias.abs() + boxes.limit_f
    of_q = q + network.inject.absolute()(x) + network.shift.abs() + boxes.limit_e
    size = size + (lam.abs() * of_p).sum(1) + (mu.abs() * of_q).sum(1)
    terms = network.recur.terms + network.inject.terms + 3 * lam.shape[1]
    return value - rounding(terms, torch.finfo(value.dtype).eps) * size


def start(network: Network, boxes: Boxes, c: Tensor) -> tuple[Tensor, Tensor]:
    """Multipliers at which every triangle is taken for its chord: λ = −D(c − Wᵀλ), μ = D_q λ, D the chords' slopes."""
    slope, below = _chord(boxes.p), _chord(boxes.q)
    lam = -slope * c
    for _ in range(CHORDS):
        lam = -slope * (c - network.recur.adjoint(lam))
    return lam, below * lam


def prove(
    network: Network, boxes: Boxes, c: Tensor, above: Tensor, *, steps: int = STEPS, rate: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Search for multipliers that prove c·z > above; a row's search ends as soon as its do.

    The search is Adam's in float32, at a rate that falls from rate·max|c| to 0 on a cosine. A bound counts only as
    it is computed, in the arguments' own type, from the multipliers found.

    Args:
        network, boxes, c: in float64; K boxes and read-outs.
        above: (K,); infinity searches to the end.
        steps: of the search at most; 0 tries its start alone.

    Returns:
        The best proven bounds, (K,), and their multipliers (λ, μ), (K, 2n). Where a search ended early, only whether
        its bound exceeds `above` has been asked.
    """
    fast, quick = network.to(torch.float), boxes.to(torch.float)
    read, wanted = c.float(), above.float()
    found = torch.full_like(above, -torch.inf)
    multipliers = torch.cat(start(fast, quick, read), 1)
    chosen = multipliers.to(c.dtype)
    rows = torch.arange(len(c), device=c.device)
    state = [multipliers, torch.zeros_like(multipliers), torch.zeros_like(multipliers), multipliers]
    best = torch.full_like(wanted, -torch.inf)
    size = rate * read.abs().amax(1, keepdim=True)
    for step in range(steps + 1):
        at, first, second, kept = state
        value, up, across = dual_value(fast, quick, read, *at.chunk(2, 1))
        kept = torch.where((value > best)[:, None], at, kept)
        best = torch.maximum(best, value)
        if step % PERIOD == 0 or step == steps:
            asked = (best > wanted) | (step == steps)
            of = rows[asked]
            if len(of):
                exact = kept[asked].to(c.dtype)
                bound = proven_value(network, boxes.take(of), c[of], *exact.chunk(2, 1))
                chosen[of] = torch.where((bound > found[of])[:, None], exact, chosen[of])
                found[of] = found[of].maximum(bound)
            going = ~(found[rows] > above[rows])
            if step == steps or not bool(going.any()):
                break
            if not bool(going.all()):
                rows, read, wanted, best, size = (part[going] for part in (rows, read, wanted, best, size))
                at, first, second, kept, up, across = (part[going] for part in (at, first, second, kept, up, across))
                quick = quick.take(going)
        ascent = torch.cat([up, across], 1)
        first = first.lerp(ascent, 1 - BETAS[0])
        second = second.lerp(ascent.square(), 1 - BETAS[1])
        now = 0.5 * (1 + math.cos(math.pi * step / steps))
        unbiased = (second / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
        at = at + now * size * (first / (1 - BETAS[0] ** (step + 1))) / unbiased
        state = [at, first, second, kept]
    return found, chosen


def _minimiser(of_relu: Tensor, of_input: Tensor, bounds: Bounds) -> Tensor:
    """Where a·ReLU(p) + λp is least, a and λ as given, for p within bounds."""
    low, high = bounds.lower, bounds.upper
    at_low = of_relu * low.clamp_min(0) + of_input * low
    at_high = of_relu * high.clamp_min(0) + of_input * high
    best = torch.where(at_low <= at_high, low, high)
    kink = (low < 0) & (high > 0) & (torch.minimum(at_low, at_high) > 0)
    return best.masked_fill(kink, 0.0)


def _chord(bounds: Bounds) -> Tensor:
    """The slope of ReLU between the bounds; where both are the same, of ReLU there."""
    low, high = bounds.lower, bounds.upper
    rise = high.clamp_min(0) - low.clamp_min(0)
    return torch.where(high > low, rise / (high - low).clamp_min(torch.finfo(low.dtype).tiny), (low > 0).to(low.dtype))

"""Is the Lyapunov module's stability claim true? What holds by construction, and what the claim needs beyond that.

Everything is checked in float64, on the parameters, on sampled points, and at the equilibria of real images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.models.lyapunov.function import Lyapunov
from bench.thresholds import EQUILIBRIUM_TOLERANCE, LYAPUNOV_TOLERANCE

ROUNDING = 1e-9  # relative, in float64
SAMPLES = 2000

Level = Literal["construction", "needed"]


@dataclass(frozen=True)
class States:
    """Equilibria z* of images under a model, float64.

    Attributes:
        z: (N, n).
        field: F(z*) = f(z*, h) − z*, (N, n); 0 up to the solver's tolerance.
        jacobian: ∂f/∂z at z*, (N, n, n).
    """

    z: Tensor
    field: Tensor
    jacobian: Tensor


@dataclass(frozen=True)
class Claim:
    """A statement, how often it was looked at and how often it is false.

    Attributes:
        where: on which points.
        worst: by how much it is false at most, 0 where it never is.
        level: whether it holds by construction, or is needed beyond for z*(x) to be stable.
    """

    name: str
    where: str
    n: int
    violations: int
    worst: float
    level: Level = "construction"

    @property
    def state(self) -> Literal["OK", "WARN", "FAIL"]:
        return "OK" if not self.violations else "FAIL" if self.level == "construction" else "WARN"


@dataclass(frozen=True)
class Figure:
    """A quantity over n points: its median and its largest value."""

    name: str
    where: str
    n: int
    median: float
    largest: float


@dataclass(frozen=True)
class Verification:
    """All claims and figures of one model."""

    claims: list[Claim]
    figures: list[Figure]

    def broken(self, level: Level) -> list[str]:
        """Names of the claims of a level that are false somewhere."""
        return list(dict.fromkeys(c.name for c in self.claims if c.level == level and c.violations))


@torch.no_grad()
def verify_lyapunov(lyapunov: Lyapunov, alpha: float, states: Mapping[str, States], seed: int = 0) -> Verification:
    """Check V (Eq. 9, 10), its projection (Eq. 8) and what both say about z*.

    Args:
        lyapunov: in float64.
        alpha: rate of decay in ∇V·F̂ ≤ −αV.
        states: by a name for where they come from, e.g. clean and adversarial images; at least one, N ≥ 1.
        seed: of the sampled points.
    """
    generator = torch.Generator().manual_seed(seed)
    every = torch.cat([part.z for part in states.values()])
    points = _samples(every, generator)
    zero = torch.zeros_like(every[:1])
    u = lyapunov.u.flatten()
    claims = [
        _claim("U ≥ 0", "parameters", -u),
        _claim("V(0) = 0", "origin", lyapunov(zero).abs()),
        _claim("V ≥ 0", "sampled", -lyapunov(points)),
        _positive(lyapunov, points, "sampled"),
        _gradient(lyapunov, points),
        _convex(lyapunov, every, points, generator),
        _decay(lyapunov, alpha, points, torch.randn(points.shape, generator=generator, dtype=points.dtype), "sampled"),
    ]
    figures = []
    for where, part in states.items():
        claims += [
            _claim("V ≥ 0", where, -lyapunov(part.z)),
            _positive(lyapunov, part.z, where),
            _decay(lyapunov, alpha, part.z, part.field, where),
        ]
        more, measured = _equilibrium(lyapunov, alpha, part, where)
        claims += more
        figures += measured
    return Verification(claims, figures)


def displacement(clean: Tensor, adversarial: Tensor, where: str) -> Figure:
    """‖Δz*‖ / ‖z*‖ of equilibria (N, n) that belong to the same images, clean and attacked."""
    moved = (adversarial - clean).norm(dim=1) / clean.norm(dim=1).clamp_min(torch.finfo(clean.dtype).tiny)
    return _figure("‖Δz*‖ / ‖z*‖ under attack", where, moved)


def _samples(z: Tensor, generator: torch.Generator) -> Tensor:
    """Points around 0 in opposite pairs, from a thousandth to three times the states' size."""
    half = torch.randn(SAMPLES // 2, z.shape[1], generator=generator, dtype=z.dtype)
    size = 10 ** (torch.rand(SAMPLES // 2, 1, generator=generator, dtype=z.dtype) * 3.5 - 3)
    half *= size * z.square().mean().sqrt().clamp_min(1e-3)
    return torch.cat([half, -half])


def _positive(lyapunov: Lyapunov, z: Tensor, where: str) -> Claim:
    """Where V is 0, F̂ may stand still. That V vanishes says no size, so the worst is ‖z‖ of such a point."""
    away = z.norm(dim=1)
    flat = (lyapunov(z) <= 0) & (away > 0)
    worst = float(away[flat].max()) if bool(flat.any()) else 0.0
    return Claim("V > 0 away from 0", where, len(z), int(flat.sum()), worst)


def _gradient(lyapunov: Lyapunov, z: Tensor) -> Claim:
    """∇V as the projection uses it against autograd's, as it takes it at almost every point."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        expected = torch.autograd.grad(lyapunov(at).sum(), at)[0]
    found = lyapunov.value_and_gradient(z)[1]
    gap = (found - expected).norm(dim=1)
    return _claim("∇V is the gradient of V", "sampled", gap, ROUNDING * (1 + expected.norm(dim=1)))


def _convex(lyapunov: Lyapunov, states: Tensor, points: Tensor, generator: torch.Generator) -> Claim:
    """g on segments between any two of the states and sampled points: never above the chord."""
    ends = torch.cat([states, points])
    first, second = (ends[torch.randint(len(ends), (SAMPLES,), generator=generator)] for _ in range(2))
    t = torch.rand(SAMPLES, 1, generator=generator, dtype=ends.dtype)
    between, a, b = (lyapunov.icnn(z) for z in (t * first + (1 - t) * second, first, second))
    chord = t[:, 0] * a + (1 - t[:, 0]) * b
    return _claim("g is convex", "sampled segments", between - chord, ROUNDING * (1 + a.abs() + b.abs()))


def _decay(lyapunov: Lyapunov, alpha: float, z: Tensor, field: Tensor, where: str) -> Claim:
    value, gradient = lyapunov.value_and_gradient(z)
    stable = lyapunov.project(field, z, alpha)
    slack = LYAPUNOV_TOLERANCE * (gradient.norm(dim=1) * stable.norm(dim=1) + alpha * value)
    # A V below 0 is a claim of its own, and must not turn the slack against this one.
    return _claim("∇V·F̂ ≤ −αV", where, (gradient * stable).sum(1) + alpha * value, slack.clamp_min(0))


def _equilibrium(lyapunov: Lyapunov, alpha: float, part: States, where: str) -> tuple[list[Claim], list[Figure]]:
    """Is z* an equilibrium of F̂, and of F a stable one?"""
    stable = lyapunov.project(part.field, part.z, alpha).norm(dim=1)
    size = part.z.norm(dim=1)
    identity = torch.eye(part.z.shape[1], dtype=part.z.dtype, device=part.z.device)
    largest = torch.linalg.eigvals(part.jacobian - identity).real.amax(1)
    below = lyapunov.icnn(torch.zeros_like(part.z[:1])) - lyapunov.icnn(part.z)
    rescaled = int((below >= 0).sum())
    claims = [
        _claim("z* is an equilibrium of F̂", where, stable, EQUILIBRIUM_TOLERANCE * size, "needed"),
        Claim("g(z*) > g(0), else F̂(z*) = −αz*/2", where, len(below), rescaled, max(float(below.max()), 0.0), "needed"),
        _claim("all eigenvalues of J − I have real part < 0", where, largest, level="needed"),
    ]
    unit = size.clamp_min(torch.finfo(size.dtype).tiny)
    figures = [
        _figure("‖F(z*)‖ / ‖z*‖, what the solver left", where, part.field.norm(dim=1) / unit),
        _figure("‖F̂(z*)‖", where, stable),
        _figure("‖F̂(z*)‖ / ‖z*‖", where, stable / unit),
        _figure("largest real part of an eigenvalue of J − I", where, largest),
    ]
    return claims, figures


def _claim(name: str, where: str, excess: Tensor, slack: Tensor | float = 0.0, level: Level = "construction") -> Claim:
    """`excess` is by how much the claim is false at each point, ≤ 0 where it is true."""
    wrong = ~(excess <= slack)  # NaN is wrong
    worst = float(excess[wrong].max()) if bool(wrong.any()) else 0.0
    return Claim(name, where, len(excess), int(wrong.sum()), worst, level)


def _figure(name: str, where: str, values: Tensor) -> Figure:
    return Figure(name, where, len(values), float(values.median()), float(values.max()))

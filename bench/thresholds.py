"""Every line that a diagnostic's interval must cross, in one place.

Shares are fractions of the examples judged. A verdict needs the whole 95 % interval beyond the line, not the
point: few examples never raise an alarm. A line at 0 means *any*: one example crosses it.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from bench.statistics import Interval


@dataclass(frozen=True)
class Thresholds:
    """Beyond which value a diagnostic warns and fails; None: it does not."""

    warn: float | None = None
    fail: float | None = None


ZERO_BUDGET = Thresholds(fail=0.0)  # predictions changed at ε = 0
ZERO_GRADIENT = Thresholds(warn=0.1, fail=0.2)  # of what the attack breaks, broken without any gradient
CANARY = Thresholds(fail=0.05)  # left of the undefended twin at the canary radius
FLATNESS = Thresholds(warn=0.01)  # broken at a radius, and not at a larger one
LARGE_EPS_ONE = Thresholds(fail=0.01)  # left at ε = 1; at ε = 1/2 the line is chance, 1 / classes
CONVERGENCE = Thresholds(warn=0.005)  # accuracy lost by doubling the steps
ONE_STEP = Thresholds(warn=0.005)  # broken by FGSM, not by many steps
NOISE = Thresholds(warn=0.0)  # broken by noise, not by the attack
BLACK_BOX = Thresholds(warn=0.002, fail=0.02)  # broken by Square alone
TRANSFER = Thresholds(fail=0.005)  # accuracy under transferred images below that under the attack's own
OWN_GRADIENT = Thresholds(warn=0.002, fail=0.01)  # broken by others, by no search along the own gradient
GRADIENT_DEAD = Thresholds(warn=0.0, fail=0.01)  # examples with a zero or NaN gradient on the path
GRADIENT_ERROR = Thresholds(warn=0.05, fail=0.5)  # relative error against central differences, at its 95th percentile
GRADIENT_AGREEMENT = Thresholds(warn=0.95, fail=0.8)  # signs shared with a converged adjoint; beyond is below
STATE = Thresholds(warn=0.0, fail=0.01)  # images whose logits depend on the calls before
GATE = Thresholds(warn=0.0, fail=0.01)  # images whose logits depend on gradient mode or batch mates
CONTINUITY = Thresholds(warn=0.0, fail=0.1)  # images whose logits jump
SMOOTHNESS = Thresholds(warn=0.1, fail=0.25)  # images whose gradient foretells nothing of a grey level's step
PRECISION_SIGNS = Thresholds(warn=0.95, fail=0.8)  # signs shared with float64; beyond is below
PRECISION_STEPS = Thresholds(warn=0.05, fail=0.25)  # images of which a fine step is rounded away
SOLVER = Thresholds(warn=0.005, fail=0.02)  # adversarial predictions that change with the solver
DETERMINISM = Thresholds(warn=0.0)  # predictions that change between two forwards
LYAPUNOV = Thresholds(fail=0.0)  # states that violate a condition
SANDWICH = Thresholds(fail=0.0)  # examples certified and broken

# By how much larger a share of test images than of held-out ones …
KNOWN_IMAGES = {
    "are right": Thresholds(warn=0.1, fail=0.2),
    "are lost to half a grey level of noise": Thresholds(warn=0.05, fail=0.1),
    "are answered otherwise for half a grey level of noise": Thresholds(warn=0.05, fail=0.1),
    "are answered unusually surely": Thresholds(warn=0.05, fail=0.1),
    "are lost to a shift by one pixel": Thresholds(warn=0.25, fail=0.4),
    "are lost to a mirror": Thresholds(warn=0.25, fail=0.4),
    "stand under attack": Thresholds(warn=0.25, fail=0.4),
}

# Flatness FAILs where the curve falls, goes flat, and stays well above zero.
FLAT_RATIO = 0.1  # of (acc(ε₁) − acc(ε_k)) to (clean − acc(ε₁))
FLAT_DROP = 0.2  # clean − acc(ε₁) at least
FLAT_LEFT = 0.1  # acc(ε_k) at least

# Away from kinks an honest gradient in float64 is off by less than 2e-3 on 95 % of points; an adjoint solved to 1e-1 is
# right in the median and wrong in the tail. So the tail is judged.
GRADIENT_TAIL = 0.05

LOGITS_MOVED = 1e-5  # of the largest logit: beyond float32's rounding of the same computation
BATCH_MOVED = 1e-3  # of the largest logit: beyond what another batch size rounds, or a solver's tolerance moves
JUMP = 0.05  # of the spread of an image's logits, by a step of 2e-6
# Of what steps of so many grey levels change to what the gradient foretells. On 90 % of images honest networks (small
# and large, MNIST and CIFAR-10) lie within 0.5 to 1.5, 0.4 to 2.7 and 0.2 to 7.3.
SMOOTHNESS_RATIOS = {1: (0.3, 4.0), 4: (0.3, 8.0), 16: (0.1, 20.0)}

MIN_POINTS = 20  # with a derivative, below which nothing is said of a gradient's error
MIN_BROKEN = 30  # a ratio of broken examples is not judged on fewer
NULL_RADIUS = Fraction(8, 255)  # zero-gradient is run at the largest radius up to this one
LYAPUNOV_TOLERANCE = 1e-5  # of ‖∇V‖‖F̂‖ + αV
EQUILIBRIUM_TOLERANCE = 1e-3  # ‖F̂(z*)‖ / ‖z*‖ above which z* is no equilibrium of F̂

# Where an undefended network must be gone; other data sets have no canary.
CANARY_RADII = {"digits": Fraction(64, 255), "mnist": Fraction(3, 10)}
CANARY_COLOUR = Fraction(8, 255)  # CIFAR, SVHN


Verdict = Literal["OK", "WARN", "FAIL", "n/a"]


def verdict_of(interval: Interval, lines: Thresholds) -> tuple[Verdict, float | None]:
    """The verdict where all of the interval must lie beyond a line, and the line that decided."""
    low = interval[0]
    if lines.fail is not None and low > lines.fail:
        return "FAIL", lines.fail
    if lines.warn is not None and low > lines.warn:
        return "WARN", lines.warn
    return "OK", lines.fail if lines.warn is None else lines.warn

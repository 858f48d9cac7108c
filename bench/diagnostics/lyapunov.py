"""What the Lyapunov module claims, on clean and on adversarial states."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.statistics import percent, wilson
from bench.thresholds import EQUILIBRIUM_TOLERANCE, LYAPUNOV, LYAPUNOV_TOLERANCE


@dataclass(frozen=True)
class Conditions:
    """Per state, bool (N,): what is violated. And ‖F̂(z*)‖ / ‖z*‖, (N,): 0 where z* is an equilibrium of F̂.

    Attributes:
        states: z*, (N, n).
        negative: V(z*) < 0.
        slow: ∇V·F̂ > −αV beyond 1e-5·(‖∇V‖‖F̂‖ + αV).
        shape: whether V(0) = 0 and U ≥ 0 fail, of the module as a whole.
        stable: g(z*) ≤ g(0), where the ICNN contributes nothing to V.
    """

    states: Tensor
    negative: Tensor
    slow: Tensor
    shape: bool
    field: Tensor
    stable: Tensor


def has_lyapunov(model: nn.Module) -> bool:
    return getattr(getattr(model, "body", None), "stabilised", None) is not None


@torch.no_grad()
def conditions(model: nn.Module, x: Tensor) -> Conditions:
    """The conditions on V (Eq. 9, 10) and on F̂ (Eq. 8) at the equilibria of images x in [0, 1], (N, C, H, W)."""
    body = cast(Any, model).body
    lyapunov, alpha = body.stabilised.lyapunov, body.stabilised.alpha
    h = body.extractor(cast(Any, model).normalize(x))
    z = body.equilibrium.solve(h).z
    field = lyapunov.project(body.equilibrium.cell(z, h) - z, z, alpha)
    value, slope = lyapunov.value_and_gradient(z)
    along, size = (slope * field).sum(1), slope.norm(dim=1) * field.norm(dim=1)
    origin = float(lyapunov(torch.zeros_like(z[:1])))
    return Conditions(
        states=z,
        negative=value < 0,
        slow=along + alpha * value > LYAPUNOV_TOLERANCE * (size + alpha * value.abs()),
        shape=origin != 0 or bool((lyapunov.u < 0).any()),
        field=field.norm(dim=1) / z.norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny),
        stable=lyapunov.icnn(z) <= lyapunov.icnn(torch.zeros_like(z)),
    )


def lyapunov(context: Context) -> DiagnosticResult:
    """V ≥ 0, V(0) = 0, U ≥ 0, ∇V·F̂ ≤ −αV; and whether z* is an equilibrium of F̂ at all."""
    name = "lyapunov"
    if not has_lyapunov(context.model) or context.space != "pixel":
        return not_applicable(name, "The model has no Lyapunov module, or is not attacked in pixel space.")
    clean, attacked = (
        conditions(context.model, images) for images in (context.x, context.attacked(context.largest).inputs)
    )
    negative, slow, moved, stable = (
        torch.cat([getattr(clean, part), getattr(attacked, part)]) for part in ("negative", "slow", "field", "stable")
    )
    n = len(negative)
    hits = n if clean.shape else int((negative | slow).sum())
    away = int((moved > EQUILIBRIUM_TOLERANCE).sum())
    shift = ((attacked.states - clean.states).norm(dim=1) / clean.states.norm(dim=1)).median()
    evidence = {
        "V below 0": int(negative.sum()),
        "decay violated": int(slow.sum()),
        "V(0) or U violated": int(clean.shape),
        "z* no equilibrium": away,
        "median ‖F̂(z*)‖/‖z*‖": float(moved.median()),
        "g(z*) ≤ g(0)": int(stable.sum()),
        "median ‖Δz*‖/‖z*‖ under attack": float(shift),
    }
    sentence = f"{hits} of {n} states violate V ≥ 0, V(0) = 0, U ≥ 0 or ∇V·F̂ ≤ −αV."
    result = of_share(name, hits, n, LYAPUNOV, sentence, "broken claim", evidence)
    if result.fired or wilson(away, n)[0] <= 0:
        return result
    sentence = (
        f"The decay condition holds on all {n} states, but z* is no equilibrium of F̂ on {percent(away / n)} of them: "
        f"‖F̂(z*)‖ is {percent(float(moved.median()))} of ‖z*‖ (median). Stability of F̂ is then none of z*."
    )
    # A fact about the claim, not about the numbers: it is no sign that the evaluation is broken.
    return DiagnosticResult(name, "WARN", sentence, away / n, 0.0, n, wilson(away, n), None, evidence)

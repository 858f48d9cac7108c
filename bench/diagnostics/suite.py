"""Every diagnostic by name, in the order they are run and printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.attacks.core.contract import ContractError
from bench.diagnostics.black_box import black_box
from bench.diagnostics.canary import canary
from bench.diagnostics.context import Context
from bench.diagnostics.continuity import continuity
from bench.diagnostics.curve import flatness, large_eps
from bench.diagnostics.effort import convergence, one_step
from bench.diagnostics.gate import gate
from bench.diagnostics.gradient import gradient
from bench.diagnostics.known_images import known_images
from bench.diagnostics.lyapunov import lyapunov
from bench.diagnostics.noise import noise
from bench.diagnostics.null_attack import zero_budget, zero_gradient
from bench.diagnostics.own_gradient import own_gradient
from bench.diagnostics.precision import precision
from bench.diagnostics.result import DiagnosticResult, Symptom
from bench.diagnostics.sandwich import sandwich
from bench.diagnostics.smoothness import smoothness
from bench.diagnostics.solver import determinism, solver
from bench.diagnostics.state import state
from bench.diagnostics.transfer import transfer
from bench.errors import first_line, unknown


@dataclass(frozen=True)
class Diagnostic:
    """`version` goes up whenever its results change; stored ones of another are computed anew."""

    name: str
    run: Callable[[Context], DiagnosticResult]
    version: int = 1


SUITE = {
    diagnostic.name: diagnostic
    for diagnostic in (
        Diagnostic("zero-budget", zero_budget),
        Diagnostic("zero-gradient", zero_gradient),
        Diagnostic("canary", canary),
        Diagnostic("flatness", flatness),
        Diagnostic("large-eps", large_eps),
        Diagnostic("convergence", convergence),
        Diagnostic("one-step", one_step, version=2),
        Diagnostic("noise", noise),
        Diagnostic("black-box", black_box, version=3),
        Diagnostic("transfer", transfer, version=2),
        Diagnostic("own-gradient", own_gradient),
        Diagnostic("gradient", gradient, version=2),
        Diagnostic("precision", precision),
        Diagnostic("smoothness", smoothness),
        Diagnostic("continuity", continuity),
        Diagnostic("solver", solver),
        Diagnostic("determinism", determinism),
        Diagnostic("state", state),
        Diagnostic("gate", gate),
        Diagnostic("known-images", known_images),
        Diagnostic("lyapunov", lyapunov),
        Diagnostic("sandwich", sandwich),
    )
}


def chosen(names: Sequence[str]) -> list[Diagnostic]:
    """The diagnostics named, all for none, in the suite's order. Raises BenchError for a name it does not have."""
    for name in names:
        if name not in SUITE:
            raise unknown("diagnostic", name, SUITE)
    return [diagnostic for diagnostic in SUITE.values() if not names or diagnostic.name in names]


def diagnose(diagnostic: Diagnostic, context: Context) -> DiagnosticResult:
    """Run one. An attack that breaks its contract on the way is a finding, and so is a model it cannot attack."""
    sign: Symptom
    try:
        return diagnostic.run(context)
    except ContractError as error:
        reason, sign = str(error), "artefact"
    except RuntimeError as error:  # what autograd raises where logits do not depend on the images
        reason, sign = first_line(error), "masking"
    except Exception as error:  # of the model's own code: a `certify` or `views` that it offers and that fails
        reason, sign = first_line(error), "broken claim"
    return DiagnosticResult(diagnostic.name, "FAIL", f"It could not be completed: {reason}.", n=context.n, sign=sign)

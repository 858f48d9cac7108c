"""The undefended twin in the same code path: an attack that leaves it standing finds nothing anywhere."""

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.settings.radii import show_eps
from bench.statistics import percent
from bench.thresholds import CANARY


def canary(context: Context) -> DiagnosticResult:
    """The protocol on the twin, at a radius that no undefended network survives."""
    name = "canary"
    if context.twin is None:
        return not_applicable(name, context.twin_missing)
    if context.canary is None:
        return not_applicable(name, "For this data set no radius is known that no undefended network survives.")
    twin = context.twin
    right = context.predict(context.to_space(twin), twin) == context.y
    left = int((right & ~context.run_protocol(twin, context.canary).broken).sum())
    sentence = (
        f"At ε = {show_eps(context.canary)} the attack leaves {percent(left / context.n)} of the undefended twin, "
        f"which is right on {percent(float(right.float().mean()))} of the clean images."
    )
    evidence: Evidence = {"clean": int(right.sum()), "left": left, "eps": show_eps(context.canary)}
    return of_share(name, left, context.n, CANARY, sentence, "weak attack", evidence)

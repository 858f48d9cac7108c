"""The undefended twin in the same code path: an attack that leaves it standing finds nothing anywhere."""

from bench.diagnostics.context import Context
from bench.diagnostics.result import Evidence, Result, not_applicable, of_share, percent
from bench.diagnostics.thresholds import CANARY
from bench.epsilon import show_eps


def canary(context: Context) -> Result:
    """The protocol on the twin, at a radius that no undefended network survives."""
    name = "canary"
    if context.twin is None:
        return not_applicable(name, "The model has no undefended twin.")
    if context.canary is None:
        return not_applicable(name, "For this data set no radius is known that no undefended network survives.")
    twin = context.twin
    right = context.predict(context.enter(twin), twin) == context.y
    left = int((right & ~context.strike(twin, context.canary).broken).sum())
    sentence = (
        f"At ε = {show_eps(context.canary)} the attack leaves {percent(left / context.n)} of the undefended twin, "
        f"which is right on {percent(float(right.float().mean()))} of the clean images."
    )
    evidence: Evidence = {"clean": int(right.sum()), "left": left, "eps": show_eps(context.canary)}
    return of_share(name, left, context.n, CANARY, sentence, "weak attack", evidence)

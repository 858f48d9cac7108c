"""Whether the model's own gradient leads to what other searches found: the line between masking and a weak attack."""

from bench.attacks.margin_search import margin_attack
from bench.diagnostics.black_box import broken_by_square
from bench.diagnostics.context import Context
from bench.diagnostics.effort import broken_by_one_step
from bench.diagnostics.noise import broken_by_noise
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.diagnostics.transfer import broken_by_transfer
from bench.settings.radii import show_eps
from bench.thresholds import OWN_GRADIENT

EXAMPLES = 50  # a search that finds nothing spends all it has


def own_gradient(context: Context) -> DiagnosticResult:
    """The margin search on the images that transfer, Square, noise or one step broke and the protocol did not.

    Where it breaks them too, the protocol was weak; where a gradient of hundreds of steps and many starts does not
    lead to what is there, it is masked.
    """
    name = "own-gradient"
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    others = {
        "transfer": broken_by_transfer(context),
        "Square": broken_by_square(context),
        "noise": broken_by_noise(context),
        "one step": broken_by_one_step(context),
    }
    standing = context.right & ~context.attacked(context.largest).broken
    missed = context.right & False
    evidence: Evidence = {}
    for label, broken in others.items():
        evidence[f"broken by {label}, not by the protocol"] = int((broken & standing).sum())
        missed |= broken & standing
    rows = missed.nonzero().flatten()[:EXAMPLES]
    missed &= False
    if len(rows):
        found = context.attack(margin_attack, context.largest, rows=rows)
        missed[rows] = ~context.broken(found, rows)
    hits = int(missed.sum())
    evidence |= {"searched": len(rows), "of these broken by the own gradient": len(rows) - hits}
    sentence = (
        f"Of {len(rows)} images that other searches break at ε = {show_eps(context.largest)} and the protocol does "
        f"not, a long search along the model's own gradient breaks {len(rows) - hits}."
    )
    return of_share(name, hits, context.n, OWN_GRADIENT, sentence, "masking", evidence)

"""A search without gradients after the one with: what it gains, gradients did not show."""

from torch import Tensor

from bench.attacks.autoattack import Options
from bench.attacks.core.cascade import bind
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, not_applicable, of_share
from bench.registry import attack
from bench.settings.radii import show_eps
from bench.thresholds import BLACK_BOX

QUERIES = 1000


def black_box(context: Context) -> DiagnosticResult:
    """Square (Andriushchenko et al. 2020) on the images that the protocol did not break."""
    name = "black-box"
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    rows = context.standing(context.largest)
    hits = int(broken_by_square(context).sum())
    sentence = (
        f"Square with {QUERIES:,} queries breaks {hits} of the {len(rows)} images that stand at "
        f"ε = {show_eps(context.largest)}."
    )
    evidence = {"standing": len(rows), "queries": QUERIES}
    return of_share(name, hits, context.n, BLACK_BOX, sentence, "weak attack", evidence)


def broken_by_square(context: Context) -> Tensor:
    """Of the images that the protocol did not break at the largest radius, bool (N,)."""

    def search() -> Tensor:
        rows, broken = context.standing(context.largest), context.right & False
        if len(rows):
            options = Options(attacks="square", queries=QUERIES)
            found = context.attack(bind(attack["autoattack"], vars(options)), context.largest, rows=rows)
            broken[rows] = context.broken(found, rows)
        return broken

    return context.once("square", search)

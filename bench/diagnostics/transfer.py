"""The same attack with another network's gradient: it must not do better than with the model's own."""

from torch import Tensor, nn

from bench.attacks.core.cascade import bind
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable
from bench.settings.radii import show_eps
from bench.statistics import paired_difference, percent
from bench.thresholds import TRANSFER, verdict_of


def transfer(context: Context) -> DiagnosticResult:
    """Images found on the undefended twin, and on the model's own views with another gradient."""
    name = "transfer"
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    sources = _sources(context)
    if not sources:
        return not_applicable(name, f"The model has no view with another gradient. {context.twin_missing}")
    own = context.attacked(context.largest).broken
    results: list[DiagnosticResult] = []
    evidence: Evidence = {"broken by the protocol": int(own.sum())}
    if context.no_twin:
        evidence["not tried"] = context.twin_missing
    for label, source in sources.items():
        broken = _broken_from(context, label, source)
        value, interval = paired_difference(int((broken & ~own).sum()), int((own & ~broken).sum()), context.n)
        verdict, line = verdict_of(interval, TRANSFER)
        evidence[f"broken from {label}"] = int(broken.sum())
        sentence = (
            f"Images found on {label} leave {percent(abs(value))} {'less' if value > 0 else 'more'} than the model's "
            f"own gradient at ε = {show_eps(context.largest)}."
        )
        results.append(
            DiagnosticResult(name, verdict, sentence, value, line, context.n, interval, "weak attack", evidence)
        )
    return max(results, key=lambda result: (result.fired, result.value or 0))


def broken_by_transfer(context: Context) -> Tensor:
    """At the largest radius, by images found on any of the sources, bool (N,)."""
    broken = context.right & False
    for label, source in _sources(context).items():
        broken |= _broken_from(context, label, source)
    return broken


def _broken_from(context: Context, label: str, source: nn.Module) -> Tensor:
    def search() -> Tensor:
        broken = context.right & False
        for plan in context.plan(context.largest):
            broken |= context.broken(context.attack(bind(plan.entry, plan.options), context.largest, source))
        return broken

    return context.once(f"transfer from {label}", search)


def _sources(context: Context) -> dict[str, nn.Module]:
    sources: dict[str, nn.Module] = {}
    if context.twin is not None:
        sources["the undefended twin"] = context.twin
    views = getattr(context.model, "views", None)
    if callable(views):
        sources |= {f"its view '{label}'": view for label, view in views().items()}
    return sources

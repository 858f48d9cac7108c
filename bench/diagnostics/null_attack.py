"""What the attack's loop does without budget, and without gradient: both must be nothing."""

from typing import cast

import torch
from torch import Tensor, nn

from bench.attacks.core.cascade import bind
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.settings.radii import show_eps
from bench.statistics import percent
from bench.thresholds import MIN_BROKEN, NULL_RADIUS, ZERO_BUDGET, ZERO_GRADIENT

CASCADE_EXAMPLES = 25  # a cascade spends all it has on images that never fall


def zero_budget(context: Context) -> DiagnosticResult:
    """The whole attack at ε = 0 with the steps of the largest radius: no prediction may change."""
    plans = context.plan(context.largest)
    cascade = any(plan.entry.traits.stages for plan in plans)
    rows = torch.arange(min(context.n, CASCADE_EXAMPLES) if cascade else context.n, device=context.x.device)
    changed = torch.zeros(len(rows), dtype=torch.bool, device=context.x.device)
    worst = 0.0
    for plan in plans:
        found = context.attack(bind(plan.entry, plan.options), 0.0, rows=rows)
        changed |= context.predict(found) != context.clean[rows]
        worst = max(worst, float((found - context.to_space()[rows]).abs().max()))
    hits = int(changed.sum())
    sentence = (
        f"With ε = 0 the attack still changes {hits} of {len(rows)} predictions: its loop moves images by itself."
        if hits
        else "With ε = 0 the attack changes no prediction."
    )
    return of_share("zero-budget", hits, len(rows), ZERO_BUDGET, sentence, "artefact", {"largest change": worst})


class FixedGradient(nn.Module):
    """A model's logits, whose gradient is zero, or noise drawn anew in every forward."""

    def __init__(self, model: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.model, self.generator = model, generator

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = cast(Tensor, self.model(x))
        if self.generator is None:
            return logits + 0 * x.flatten(1).sum(1, keepdim=True)
        noise = torch.randn(x.shape, generator=self.generator).to(x)
        pull = (x * noise).flatten(1).sum(1, keepdim=True)
        # On one logit: a softmax' gradient is blind to what is added to all of them.
        first = torch.zeros_like(logits)
        first[:, 0] = 1
        return logits + (pull - pull.detach()) * first


class _Split(nn.Module):
    """`normalize` of a model and another body, for protocols that attack the body."""

    def __init__(self, model: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.normalize, self.body = cast(nn.Module, model.normalize), body

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(self.normalize(x)))


def _with_gradient(context: Context, generator: torch.Generator | None = None) -> nn.Module:
    if context.space == "pixel":
        return FixedGradient(context.model, generator)
    return _Split(context.model, FixedGradient(cast(nn.Module, context.model.body), generator))


def zero_gradient(context: Context) -> DiagnosticResult:
    """The same loop without random start and with every gradient 0; with random signs, for information."""
    name = "zero-gradient"
    radii = [eps for eps in context.radii if eps <= NULL_RADIUS]
    if not radii:
        return not_applicable(name, f"No radius of the grid is at most {show_eps(NULL_RADIUS)}.")
    eps, results = radii[-1], []
    for plan in context.plan(eps):
        if plan.entry.traits.stages:
            continue
        still = {**plan.options, "random_start": False} if "random_start" in plan.options else plan.options
        search = bind(plan.entry, still)
        null = context.attack(search, eps, _with_gradient(context))
        random = context.attack(search, eps, _with_gradient(context, torch.Generator().manual_seed(0)))
        broken = int(context.broken(context.attack(bind(plan.entry, plan.options), eps)).sum())
        moved = not torch.equal(null, context.to_space())
        hits = int(context.broken(null).sum())
        evidence: Evidence = {
            "attack": plan.label,
            "eps": show_eps(eps),
            "broken": broken,
            "broken without gradient": hits,
            "broken by random signs": int(context.broken(random).sum()),
        }
        results.append(_judge(name, hits, broken, moved, evidence))
    if not results:
        return not_applicable(name, "A cascade draws its own starts; its stages are not run without them.")
    return max(results, key=lambda result: (result.fired, result.value is not None, result.value or 0))


def _judge(name: str, hits: int, broken: int, moved: bool, evidence: Evidence) -> DiagnosticResult:
    if not moved:
        # Exact, not statistical: images that did not move cannot have been broken.
        return of_share(name, 0, broken, ZERO_GRADIENT, "Without a gradient the loop moves no image.", None, evidence)
    if broken < MIN_BROKEN:
        return not_applicable(name, f"The attack breaks {broken} examples; at least {MIN_BROKEN} are needed.", broken)
    sentence = (
        f"{percent(min(hits, broken) / broken)} of what {evidence['attack']} breaks is broken without any gradient, "
        "by the loop's own clamps and projections."
    )
    return of_share(name, min(hits, broken), broken, ZERO_GRADIENT, sentence, "artefact", evidence)

"""Whether the attack tried hard enough: more steps, more restarts, and one large step against many."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from bench.attacks.core.cascade import bind
from bench.attacks.gradient_sign import ifgsm, pgd
from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.execution.matrix_rows import AttackPlan
from bench.settings.radii import show_eps
from bench.statistics import paired_difference, percent
from bench.thresholds import CONVERGENCE, ONE_STEP, verdict_of

STEPS = 100  # at least, at the end of the ladder, and of the strong PGD
RESTARTS = (1, 5, 10)
CASCADE_EXAMPLES = 50


def convergence(context: Context) -> DiagnosticResult:
    """n, 2n, 4n … steps, up to 100 at least. Every doubling is judged: where the step is so short that 2n
    steps break no more than n, only a later one shows it. The ladder ends at the first that crosses."""
    results = [result for plan in context.plan(context.largest) if (result := _ladder(context, plan))]
    if not results:
        return not_applicable("convergence", "No attack of the protocol has a number of steps.")
    return max(results, key=lambda result: (result.fired, result.value or 0))


def _ladder(context: Context, plan: AttackPlan) -> DiagnosticResult | None:
    option = next((name for name in ("steps", "iterations") if name in plan.options), None)
    if option is None or plan.options[option] < 1:
        return None
    limit = CASCADE_EXAMPLES if plan.entry.traits.stages else context.n
    rows = torch.arange(min(context.n, limit), device=context.x.device)
    counts = [int(plan.options[option])]
    while len(counts) < 2 or counts[-1] < STEPS:
        counts.append(2 * counts[-1])
    broken = {counts[0]: _broken(context, plan, rows, option, counts[0])}
    worst: DiagnosticResult | None = None
    for fewer, more in pairwise(counts):
        broken[more] = _broken(context, plan, rows, option, more)
        lost, won = int((broken[more] & ~broken[fewer]).sum()), int((broken[fewer] & ~broken[more]).sum())
        value, interval = paired_difference(lost, won, len(rows))
        verdict, line = verdict_of(interval, CONVERGENCE)
        sentence = (
            f"{plan.label} at ε = {show_eps(context.largest)}: {more} steps in place of {fewer} take accuracy "
            f"{percent(value)} lower."
        )
        rung = DiagnosticResult("convergence", verdict, sentence, value, line, len(rows), interval, "weak attack")
        if worst is None or (rung.fired, value) > (worst.fired, worst.value or 0):
            worst = rung
        if worst.fired:
            break
    assert worst is not None
    evidence: Evidence = {f"broken in {count} steps": int(b.sum()) for count, b in broken.items()}
    evidence |= _restarts(context, plan, rows, broken[counts[0]])
    return replace(worst, evidence=evidence)


def _broken(context: Context, plan: AttackPlan, rows: Tensor, option: str, count: int) -> Tensor:
    found = context.attack(bind(plan.entry, {**plan.options, option: count}), context.largest, rows=rows)
    return context.broken(found, rows)


def _restarts(context: Context, plan: AttackPlan, rows: Tensor, broken: Tensor) -> Evidence:
    """Broken by any of several restarts, for information; the first is the attack itself."""
    if "restart" not in plan.options or not plan.options.get("random_start", True):
        return {}
    any_of, found = broken.clone(), {}
    for count in range(1, RESTARTS[-1] + 1):
        standing = (context.right[rows] & ~any_of).nonzero().flatten()
        if count > 1 and len(standing):
            search = bind(plan.entry, {**plan.options, "restart": count - 1})
            images = context.attack(search, context.largest, rows=rows[standing])
            any_of[standing] |= context.broken(images, rows[standing])
        if count in RESTARTS:
            found[f"broken by any of {count} restarts"] = int(any_of.sum())
    return dict(found)


def one_step(context: Context) -> DiagnosticResult:
    """Broken by one step (FGSM, Goodfellow et al. 2015), and not by PGD-100 or the protocol."""
    name, eps = "one-step", float(context.largest)
    if context.space != "pixel":
        return not_applicable(name, "A control's loop is judged by zero-budget and zero-gradient.")
    fgsm = broken_by_one_step(context)
    many = context.broken(context.attack(partial(pgd, steps=STEPS, alpha=2.5 * eps / STEPS), eps))
    own = context.attacked(context.largest).broken
    missed, missed_by_own = int((fgsm & ~many).sum()), int((fgsm & ~own).sum())
    evidence: Evidence = {
        "broken by FGSM": int(fgsm.sum()),
        f"broken by PGD-{STEPS}": int(many.sum()),
        "broken by the protocol": int(own.sum()),
        f"FGSM, not PGD-{STEPS}": missed,
        "FGSM, not the protocol": missed_by_own,
    }
    results = []
    for hits, what in ((missed, f"PGD-{STEPS}"), (missed_by_own, "the protocol")):
        sentence = f"{hits} of {context.n} images fall to one step of size ε and not to {what}."
        results.append(of_share(name, hits, context.n, ONE_STEP, sentence, "weak attack", evidence))
    strong, weak = results
    return weak if weak.fired and not strong.fired else strong


def broken_by_one_step(context: Context) -> Tensor:
    """At the largest radius, by a step of its size from the clean image, bool (N,)."""
    eps = float(context.largest)
    return context.once(
        "one step", lambda: context.broken(context.attack(partial(ifgsm, steps=1, alpha=eps), context.largest))
    )

"""Whether predictions depend on how the model is computed: the solver, the batch, the precision, the call."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, of_share
from bench.errors import BenchError
from bench.evaluation.input_space import in_space
from bench.statistics import paired_difference, percent
from bench.thresholds import DETERMINISM, SOLVER, verdict_of

REPEATS = 5


def solver(context: Context) -> DiagnosticResult:
    """Predictions of adversarial images under a tighter tolerance, another solver, batch 1 and float64; and
    whether the attack drives images to where the solver does not converge."""
    inputs = context.attacked(context.largest).inputs
    before = context.predict(inputs)
    results: list[DiagnosticResult] = []
    evidence: Evidence = {}
    for label, changed in _changes(context, inputs, before).items():
        hits = int(changed.sum())
        evidence[f"changed: {label}"] = hits
        sentence = f"{hits} of {context.n} adversarial predictions change with {label}."
        results.append(of_share("solver", hits, context.n, SOLVER, sentence, "non-convergence", evidence))
    results += _residuals(context, inputs, evidence)
    worst = max(results, key=lambda result: (result.verdict == "FAIL", result.fired, result.value or 0))
    if worst.fired:
        return worst
    tried = ", ".join(name.removeprefix("changed: ") for name in evidence if name.startswith("changed: "))
    return replace(
        worst, sentence=f"At most {percent(worst.value or 0)} of adversarial predictions change with {tried}."
    )


def _changes(context: Context, inputs: Tensor, before: Tensor) -> dict[str, Tensor]:
    found = {"batches of one image": context.predict(inputs, batch=1) != before}
    for label, model in _variants(context).items():
        dtype = next((t.dtype for t in model.parameters()), inputs.dtype)
        try:
            found[label] = context.predict(inputs.to(dtype), model) != before
        except RuntimeError:  # a foreign model that is written for float32
            continue
    return found


def _variants(context: Context) -> dict[str, nn.Module]:
    options, variants = context.options, {}
    wanted = {"float64": context.converged()}
    if "tol" in options and "max_iter" in options:
        longer = {"max_iter": max(200, 4 * int(options["max_iter"]))}
        wanted["a tolerance 100 times tighter"] = {"tol": float(options["tol"]) / 100, **longer}
        if "solver" in options:
            other = "broyden" if options["solver"] != "broyden" else "anderson"
            wanted[f"the solver {other}"] = {"solver": other, **longer}
    for label, replaced in wanted.items():
        try:
            model = context.rebuild(replaced)
        except (BenchError, ValueError):
            continue
        variants[label] = model.double() if label == "float64" else model
    return variants


def _residuals(context: Context, inputs: Tensor, evidence: Evidence) -> list[DiagnosticResult]:
    """Share of images whose fixed point was not found to tolerance, adversarial less clean."""
    figures = getattr(in_space(context.model, context.space).model, "diagnostics", None)
    tol = context.options.get("tol")
    if figures is None or tol is None:
        return []
    both = (context.to_space(), inputs)
    parts = [[figures(part).get("residual") for part in images.split(context.batch)] for images in both]
    if any(part is None for side in parts for part in side):
        return []
    clean, adversarial = (torch.cat(side) >= float(tol) for side in parts)
    evidence["not converged, clean"] = int(clean.sum())
    evidence["not converged, adversarial"] = int(adversarial.sum())
    lost, won = int((adversarial & ~clean).sum()), int((clean & ~adversarial).sum())
    value, interval = paired_difference(lost, won, context.n)
    verdict, line = verdict_of(interval, SOLVER)
    sentence = f"The solver misses its tolerance on {percent(value)} more images under attack than clean."
    return [
        DiagnosticResult("solver", verdict, sentence, value, line, context.n, interval, "non-convergence", evidence)
    ]


def determinism(context: Context) -> DiagnosticResult:
    """Repeated forwards of the clean and the adversarial images."""
    inputs = torch.cat([context.to_space(), context.attacked(context.largest).inputs])
    first = context.logits(inputs)
    flipped, gap = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device), 0.0
    for _ in range(REPEATS):
        again = context.logits(inputs)
        flipped |= again.argmax(1) != first.argmax(1)
        gap = max(gap, float((again - first).abs().max()))
    hits = int(flipped.sum())
    sentence = f"{hits} of {len(inputs)} predictions change in {REPEATS} further forwards of the same images."
    if gap and not hits:
        sentence += f" Logits move by up to {gap:.2g}."
    evidence = {"largest change of a logit": gap, "forwards": REPEATS + 1}
    return of_share("determinism", hits, len(inputs), DETERMINISM, sentence, "masking", evidence)

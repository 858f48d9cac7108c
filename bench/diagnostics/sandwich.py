"""Certified accuracy cannot exceed what any attack leaves: example by example."""

import torch

from bench.diagnostics.context import Context
from bench.diagnostics.result import DiagnosticResult, Evidence, not_applicable, of_share
from bench.evaluation.certificates import CERTIFICATE, certificate_label, certificates
from bench.settings.radii import show_eps
from bench.thresholds import SANDWICH


def sandwich(context: Context) -> DiagnosticResult:
    """No example that is certified at a radius may be broken there, or at a smaller one."""
    name, proofs = "sandwich", certificates(context.model)
    if not proofs or context.space != "pixel":
        return not_applicable(name, "The model certifies nothing, or is not attacked in pixel space.")
    broken = ~context.right
    violated = torch.zeros_like(broken)
    evidence: Evidence = {}
    for eps in context.radii:
        broken = broken | context.attacked(eps).broken
        for proof in proofs:
            parts = zip(context.x.split(context.batch), context.y.split(context.batch), strict=True)
            certified = torch.cat([proof.prove(x, y, float(eps)) for x, y in parts])
            violated |= certified & broken
            what = certificate_label(proof.options).replace(CERTIFICATE, "certified")
            evidence[f"{what} at {show_eps(eps)}"] = int(certified.sum())
        evidence[f"standing at {show_eps(eps)}"] = int((~broken).sum())
    hits = int(violated.sum())
    sentence = (
        f"{hits} of {context.n} images are certified and broken all the same: certificate or attack has a bug."
        if hits
        else f"No image that is certified was broken at any of {len(context.radii)} radii."
    )
    return of_share(name, hits, context.n, SANDWICH, sentence, "broken claim", evidence)

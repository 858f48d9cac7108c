"""What `bench verify` found, for the terminal and as JSON, with a conclusion in plain words."""

import json
from dataclasses import asdict
from fractions import Fraction
from typing import Literal

from tabulate import tabulate

from bench.settings.radii import show_eps
from bench.statistics import wilson
from bench.verification.lyapunov import Verification


def render(result: Verification, label: str, dataset: str, eps: Fraction, form: Literal["terminal", "json"]) -> str:
    """The findings as text.

    Args:
        label: the model's name.
        eps: radius of the attack behind the adversarial states.
    """
    if form == "json":
        claims = [{**asdict(claim), "verdict": claim.state} for claim in result.claims]
        content = {"model": label, "dataset": dataset, "eps": show_eps(eps), "claims": claims}
        content |= {"figures": [asdict(f) for f in result.figures], "conclusion": conclude(result)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    claims_table = []
    for claim in result.claims:
        low, high = wilson(claim.violations, claim.n)
        share = f"{claim.violations} of {claim.n}"
        if claim.where not in ("parameters", "origin"):  # those are all there are, not a sample
            share += f" [{100 * low:.1f}, {100 * high:.1f}] %"
        needed = "by construction" if claim.level == "construction" else "needed beyond"
        worst = f"{claim.worst:.3g}" if claim.violations else ""
        claims_table.append([claim.state, claim.name, claim.where, needed, share, worst])
    figures = [[f.name, f.where, f.n, f"{f.median:.3g}", f"{f.largest:.3g}"] for f in result.figures]
    head = f"{label} on {dataset}, in float64; adversarial states are those of PGD-20 at {show_eps(eps)}.\n\n"
    parts = [
        tabulate(claims_table, ["", "claim", "where", "", "false at (95 %)", "by at most"], "plain"),
        tabulate(figures, ["figure", "where", "n", "median", "largest"], "plain", disable_numparse=True),
        "\n".join(conclude(result)),
    ]
    return head + "\n\n".join(parts) + "\n"


def conclude(result: Verification) -> tuple[str, str]:
    """Two sentences: what holds of V and its projection, and what that says about z*."""
    broken, lacking = result.broken("construction"), result.broken("needed")
    proven = "V and the projection are what the paper says, at every point looked at."
    first = f"NOT as the paper says: {'; '.join(broken)}." if broken else proven
    moving = [c for c in result.claims if c.name == "z* is an equilibrium of F̂"]
    away, n = sum(c.violations for c in moving), sum(c.n for c in moving)
    size = max(f.median for f in result.figures if f.name == "‖F̂(z*)‖ / ‖z*‖")
    if away:
        second = (
            f"They say nothing about z*: no point but 0, where V is least, can be an equilibrium of F̂, and {away} of "
            f"{n} states z* are none (‖F̂(z*)‖ is {100 * size:.1f} % of ‖z*‖ in the median)."
        )
    else:
        second = f"All {n} states z* are equilibria of F̂ within tolerance; V has its minimum at 0 all the same."
    others = [name for name in lacking if name.startswith("all eigenvalues")]
    return first, second + (" Some z* are unstable equilibria of the undefended layer too." if others else "")

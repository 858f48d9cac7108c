"""From adversarial images to outcomes: the columns of a shard."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.attacks.core.cascade import STANDING
from bench.attacks.core.contract import ContractError, linf
from bench.attacks.core.gradient_watch import NONE
from bench.evaluation.budget import Counted
from bench.evaluation.input_space import Victim
from bench.evaluation.outcomes import Outcomes
from bench.models.equilibrium.solution_recorder import recording
from bench.models.equilibrium.work_counter import counting


@dataclass(frozen=True)
class Judged:
    """Of each image the class predicted, and its equilibrium's relative residual, NaN where there is none; (N,)."""

    predicted: Tensor
    residual: Tensor


@torch.no_grad()
def judge(victim: Victim, counted: Counted, images: Tensor) -> Judged:
    """A forward of its own, never a value that a search computed. Raises ContractError for logits not finite."""
    with recording() as solutions:
        logits = counted(images)
    if not bool(logits.isfinite().all()):
        raise ContractError("the model returned logits that are not finite")
    # A model may run a layer on parts or several views of the images; then it has to say itself what that means.
    if solutions and all(one.residual.shape == (len(images),) for one in solutions):
        return Judged(logits.argmax(1), torch.stack([one.residual.float() for one in solutions]).amax(0))
    figures = getattr(victim.model, "diagnostics", None)
    with counting():  # not part of what the verdict costs
        residual = figures(images.clone()).get("residual") if figures else None
    if residual is None or residual.shape != (len(images),):
        residual = torch.full((len(images),), torch.nan, device=images.device)
    return Judged(logits.argmax(1), residual.float())


def outcome_columns(
    x: Tensor,
    y: Tensor,
    clean: Tensor,
    attacked: Tensor,
    verdict: Judged,
    *,
    indices: Sequence[int],
    unit: Tensor | None = None,
    broken_by: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Outcomes:
    """Columns index, label, clean, adversarial (predictions), broken, broken_by, linf, residual, gradient, each (N,).

    `broken` means classified correctly when clean and wrongly when attacked; `broken_by` is the position of the
    cascade's stage that did it, −1 elsewhere; `linf` is in pixel units, of which a difference of 1 is `unit`;
    `gradient` is what the attack's gradients were like, a code of `attacks.core.gradient_watch`.
    """
    adversarial = verdict.predicted
    broken = (clean == y) & (adversarial != y)
    by = torch.full_like(y, STANDING) if broken_by is None else broken_by
    met = torch.full_like(y, NONE) if gradient is None else gradient
    found = {
        "label": y.to(torch.int32),
        "clean": clean.to(torch.int32),
        "adversarial": adversarial.to(torch.int32),
        "broken": broken,
        "broken_by": torch.where(broken, by, STANDING).to(torch.int8),
        "linf": linf(x, attacked, unit).float(),
        "residual": verdict.residual,
        "gradient": met.to(torch.int8),
    }
    return {"index": np.asarray(indices, np.int32)} | {name: t.cpu().numpy() for name, t in found.items()}

"""Training on interval bounds (Wei & Kolter 2022): the radius and the monotonicity move as training goes on."""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.errors import BenchError
from bench.registry import recipe
from bench.settings.lengths import Length
from bench.training.recipes.standard import TrainingStep

QUARTER, DEGREE = 0.25, 4

Share = Annotated[float, Field(ge=0, le=1)]


def steps_down(step: int, steps: int) -> float:
    """1, then 0.2 from epoch 120 and 0.04 from epoch 280 of 300, in whatever number of epochs there is."""
    return 0.2 ** ((300 * step >= 120 * steps) + (300 * step >= 280 * steps))


def ramp_up(t: float) -> float:
    """0 for t ≤ 0, 1 for t ≥ 1; between, c·t⁴ for a quarter of the way and then its tangent."""
    t = min(max(t, 0.0), 1.0)
    slope = DEGREE * QUARTER ** (DEGREE - 1)
    top = QUARTER**DEGREE + slope * (1 - QUARTER)
    return (t**DEGREE if t < QUARTER else QUARTER**DEGREE + slope * (t - QUARTER)) / top


@recipe(
    "ibp",
    settings={"epochs": 300, "batch_size": 128, "lr": 5e-4, "grad_clip": 10.0},
    schedule=steps_down,
)
def ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: TrainingStep,
    *,
    eps: Length = 0.0,
    clean: Share = 0.0,
    warm_up: Share = 1 / 300,
    ramp: Share = 79 / 300,
    m_start: Share = 0.0,
) -> Tensor:
    """Cross-entropy on the worst-case logits that interval bounds leave open.

    Args:
        model: with `worst_case` (see models/mondeq.py). Raises BenchError for another.
        eps: radius, a fraction of the pixel range; 0: the model's own.
        clean: weight of the clean cross-entropy beside it.
        warm_up: share of the training without a radius.
        ramp: share of the training, after it, over which the radius grows.
        m_start: monotonicity at the start, annealed to the model's own while the radius grows; 0: constant.
    """
    net: Any = model
    if not hasattr(model, "worst_case"):
        raise BenchError("recipe 'ibp' needs a model with interval bounds: ibp-mondeq or mondeq.")
    radius = eps or net.eps
    if not radius:
        raise BenchError("recipe 'ibp': the model names no radius; write +ibp[eps=0.1].")
    progress = (moment.done - warm_up) / ramp if ramp else float(moment.done >= warm_up)
    if m_start:
        net.anneal(m_start, min(max(progress, 0.0), 1.0))
    logits, worst = net.worst_case(x, y, radius * ramp_up(progress))
    moment.logits.append(logits.detach())
    loss = (1 - clean) * functional.cross_entropy(worst, y)
    return loss + clean * functional.cross_entropy(logits, y) if clean else loss

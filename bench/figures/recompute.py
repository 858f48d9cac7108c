"""Images attacked anew from a checkpoint, with the random draws that the store was filled with."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.core.cascade import bind
from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.evaluation.input_space import space_of
from bench.execution.matrix_rows import AttackPlan, Row
from bench.execution.worker import load_model
from bench.registry import protocol
from bench.settings.config import Config
from bench.store.cells import SHARD
from bench.system.environment import make_exact, pick_device
from bench.system.threads import threads


@dataclass(frozen=True)
class Attacked:
    """The first n test images before and after an attack.

    Attributes:
        row, plan: the model and the attack.
        model: in eval mode.
        x, adversarial: images in [0, 1], (N, C, H, W).
        label, before, after: true class and predictions, (N,).
    """

    row: Row
    plan: AttackPlan
    model: nn.Module
    x: Tensor
    adversarial: Tensor
    label: Tensor
    before: Tensor
    after: Tensor

    @property
    def broken(self) -> Tensor:
        """Right before and wrong after, (N,)."""
        return (self.before == self.label) & (self.after != self.label)


def attack_first(row: Row, plan: AttackPlan, data: Dataset, config: Config, examples: int) -> Attacked:
    """Attack the first n test images as a worker does, shard by shard on one thread.

    Raises:
        BenchError: the row has no checkpoint, or the protocol does not attack pixels.
    """
    if not row.cells:
        raise BenchError(
            f"{row.label} on {row.dataset}: {row.failure or 'no checkpoint'}; train it with "
            f"`python -m bench train --models '{row.label}' --dataset {row.dataset}`."
        )
    if space_of(protocol[config.run.protocol]) != "pixel":
        raise BenchError(f"--protocol {config.run.protocol} does not attack images; this figure needs one that does.")
    device = pick_device(config.run.device)
    first = row.cells[0]
    make_exact()
    with threads(1):
        model = load_model(first.source, data, str(device), first.identity.model.weights)
        n = min(examples or len(data.x_test), len(data.x_test))
        parts = [_attack(model, plan, data, config, range(i, min(i + SHARD, n)), device) for i in range(0, n, SHARD)]
    x, adversarial, before, after = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Attacked(row, plan, model, x, adversarial, data.y_test[:n].to(device), before, after)


def _attack(
    model: nn.Module, plan: AttackPlan, data: Dataset, config: Config, rows: range, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = as_pixels(data.x_test[rows.start : rows.stop]).to(device)
    y = data.y_test[rows.start : rows.stop].to(device)
    eps = torch.full((len(x),), float(plan.eps), device=device)
    search = bind(plan.entry, plan.options)
    adversarial = run_attack(search, model, x, y, eps, Draws(config.run.seed, data.test_hash, rows))
    with torch.no_grad():
        return x, adversarial, model(x).argmax(1), model(adversarial).argmax(1)

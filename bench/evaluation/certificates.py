"""What a model proves of itself: a certificate per test image and radius, in cells of their own.

A certificate holds against every attack of the ball, so its cell knows no protocol, no attack seed and no draws.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import ContractError, frozen
from bench.data.load import as_pixels
from bench.evaluation.batch import Batch, Evaluated
from bench.evaluation.budget import Budget, Counted
from bench.models.equilibrium.work_counter import counting
from bench.system.environment import device_of

CERTIFICATE = "certificate"
IMPLEMENTATION = "1"  # raise it whenever what is stored changes; the proof itself is versioned with its model


def offers_certificate(model: nn.Module) -> bool:
    """Whether the model has `certify(x, y, eps) -> bool (N,)`."""
    return callable(getattr(model, "certify", None))


def certify(model: nn.Module, batch: Batch, eps: float, *, batch_size: int, classes: int) -> Evaluated:
    """Certificates of test examples, in order, and what they took.

    Args:
        model: with `certify`, in eval mode, on its device.
        eps: L∞ radius in units of the pixel range.
        batch_size: images per forward; batches are cut at multiples of it.

    Returns:
        Columns index, label, clean (prediction) and certified, each (N,): whether every image of the ball is
        proven to be classified as the label.

    Raises:
        ContractError: `certify` returns something other than one bool per image.
    """
    budget, parts = Budget(), []
    counted = Counted(model, budget, classes).eval()
    device = device_of(model)
    started = time.monotonic()
    with counting() as work, frozen(model):
        for start in range(0, len(batch), batch_size):
            rows = slice(start, start + batch_size)
            images, labels = as_pixels(batch.x[rows]).to(device), batch.y[rows].to(device)
            with torch.no_grad():
                clean = counted(images).argmax(1)
            proven = model.certify(images, labels, eps)  # type: ignore[operator]
            if not isinstance(proven, Tensor) or proven.shape != labels.shape or proven.dtype != torch.bool:
                got = f"{tuple(proven.shape)} {proven.dtype}" if isinstance(proven, Tensor) else type(proven).__name__
                raise ContractError(f"the model's certify must return bool {tuple(labels.shape)}, got {got}")
            columns = {"label": labels.to(torch.int32), "clean": clean.to(torch.int32), "certified": proven.detach()}
            parts.append(
                {"index": np.asarray(batch.indices[rows], np.int32)} | {k: t.cpu().numpy() for k, t in columns.items()}
            )
    budget.f_evaluations, budget.vjps = work.f_evaluations, work.vjps
    budget.seconds = time.monotonic() - started
    return Evaluated({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, budget)

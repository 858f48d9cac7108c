"""What a model proves of itself: a certificate per test image and radius, in cells of their own.

A certificate holds against every attack of the ball, so its cell knows no protocol, no attack seed and no draws.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.core.contract import ContractError, frozen
from bench.data.load import as_pixels
from bench.errors import BenchError
from bench.evaluation.batch import Batch, Evaluated
from bench.evaluation.budget import Budget, Counted
from bench.models.equilibrium.work_counter import counting
from bench.system.environment import device_of

CERTIFICATE = "certificate"
IMPLEMENTATION = "1"  # raise it whenever what is stored changes; the proof itself is versioned with its model


Prove = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Certificate:
    """One way in which a model proves.

    Attributes:
        label: as the table prints it.
        options: what keys it beside the model: `method`, its name; nothing for the model's `certify`.
        prove: images, labels and radius to bool (N,).
    """

    label: str
    options: dict[str, Any]
    prove: Prove


def certificates(model: nn.Module) -> list[Certificate]:
    """What the model offers: its method `certify(x, y, eps) -> bool (N,)`; or, where there are several such, all of its
    mapping `certificates` of names to them, `certify` among them. Empty where it has neither.

    Raises BenchError for `certificates` that are no such mapping.
    """
    usual, several = getattr(model, "certify", None), getattr(model, "certificates", {})
    if not isinstance(several, Mapping) or not all(map(callable, several.values())):
        raise BenchError(f"{type(model).__name__}.certificates must map names to methods (x, y, eps) -> bool (N,).")
    if not several:
        return [Certificate(certificate_label({}), {}, usual)] if callable(usual) else []
    return [
        Certificate(certificate_label({"method": name}), {} if prove == usual else {"method": name}, prove)
        for name, prove in several.items()
    ]


def certificate_label(options: Mapping[str, Any]) -> str:
    """How a table prints the certificate of these options."""
    return f"{CERTIFICATE}[{options['method']}]" if "method" in options else CERTIFICATE


def certify(
    model: nn.Module, batch: Batch, eps: float, *, batch_size: int, classes: int, method: str = ""
) -> Evaluated:
    """Certificates of test examples, in order, and what they took.

    Args:
        model: with `certify`, in eval mode, on its device.
        eps: L∞ radius in units of the pixel range.
        batch_size: images per forward; batches are cut at multiples of it.
        method: which of the model's `certificates`; none of them: its `certify`.

    Returns:
        Columns index, label, clean (prediction) and certified, each (N,): whether every image of the ball is
        proven to be classified as the label.

    Raises:
        ContractError: it has no such method, or one that returns something other than one bool per image.
    """
    found = [one.prove for one in certificates(model) if one.options.get("method", "") == method]
    if not found:
        raise ContractError(f"the model has no certificate {method!r}")
    (prove,), named = found, f"certificate {method}" if method else "certify"
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
            proven = prove(images.clone(), labels.clone(), eps)
            if not isinstance(proven, Tensor) or proven.shape != labels.shape or proven.dtype != torch.bool:
                got = f"{tuple(proven.shape)} {proven.dtype}" if isinstance(proven, Tensor) else type(proven).__name__
                raise ContractError(f"the model's {named} must return bool {tuple(labels.shape)}, got {got}")
            columns = {"label": labels.to(torch.int32), "clean": clean.to(torch.int32), "certified": proven.detach()}
            parts.append(
                {"index": np.asarray(batch.indices[rows], np.int32)} | {k: t.cpu().numpy() for k, t in columns.items()}
            )
    budget.f_evaluations, budget.vjps = work.f_evaluations, work.vjps
    budget.seconds = time.monotonic() - started
    return Evaluated({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, budget)

"""Equilibria of a DEQ on clean and on attacked images, in float64: what `bench verify` looks at."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from bench.attacks.core.contract import run_attack
from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd
from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError
from bench.models.deq import DEQBody
from bench.training.checkpoint_choice import trained
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import Job
from bench.training.loop import build_model
from bench.verification.lyapunov import States, Verification, displacement, verify_lyapunov

STEPS = 20
TOLERANCE = 1e-10  # relative residual of an equilibrium in float64
_BATCH = 250


def verify_model(
    job: Job,
    undefended: Job,
    data: Dataset,
    checkpoints: Path,
    device: torch.device,
    *,
    eps: float,
    examples: int,
    seed: int,
) -> Verification:
    """Check a trained model's Lyapunov module at the equilibria of the first `examples` test images, and of PGD-20's.

    Args:
        undefended: the plain DEQ; how far its equilibria move under PGD-20 is measured where it is trained.
        eps: L∞ radius in units of the pixel range.
        seed: of the attack's random starts and of sampled points.

    Raises:
        BenchError: the model has no Lyapunov module, or no checkpoint.
    """
    body = deq_body(build_model(job, data))
    if body is None or body.stabilised is None:
        raise BenchError(f"model '{job.label}' has no Lyapunov module to verify; lyadeq and lyadeq-no-orth have one.")
    if not trained(job, checkpoints):
        train = f"python -m bench train --models '{job.label}' --dataset {data.name}"
        raise BenchError(f"no checkpoint of {job.label} on {data.name}; run `{train}` with the options given here.")

    def states(of: Job) -> tuple[nn.Module, States, States]:
        net = build_model(of, data)
        if not of.pretrained:
            load_weights(of.checkpoint(checkpoints), net)
        net = net.to(device).eval()
        clean, adversarial = (equilibria(net, x) for x in attacked(net, data, examples, eps, seed))
        return net, clean, adversarial

    net, clean, adversarial = states(job)
    stabilised = cast(DEQBody, copy.deepcopy(net).double().cpu().body).stabilised
    assert stabilised is not None
    result = verify_lyapunov(stabilised.lyapunov, stabilised.alpha, {"clean": clean, "adversarial": adversarial}, seed)
    result.figures.append(displacement(clean.z, adversarial.z, job.label))
    if trained(undefended, checkpoints):
        _, clean, adversarial = states(undefended)
        result.figures.append(displacement(clean.z, adversarial.z, undefended.label))
    return result


def deq_body(net: nn.Module) -> DEQBody | None:
    """The part of a DEQ behind its normalisation; None for any other model."""
    body = getattr(net, "body", None)
    return body if isinstance(body, DEQBody) else None


def attacked(net: nn.Module, data: Dataset, examples: int, eps: float, seed: int) -> tuple[Tensor, Tensor]:
    """The first test images and what PGD-20 makes of them, (N, C, H, W), steps of 2.5·ε/20 from a random start."""
    device = next(net.parameters()).device
    search = partial(pgd, steps=STEPS, alpha=max(2.5 * eps / STEPS, 1e-9))
    clean, found = as_pixels(data.x_test[:examples]), []
    for start in range(0, len(clean), _BATCH):
        rows = range(start, min(start + _BATCH, len(clean)))
        x, y = clean[rows.start : rows.stop].to(device), data.y_test[rows.start : rows.stop].to(device)
        radius = torch.full((len(x),), eps, device=device)
        found.append(run_attack(search, net, x, y, radius, Draws(seed, data.test_hash, rows)).cpu())
    return clean, torch.cat(found)


@torch.no_grad()
def equilibria(net: nn.Module, x: Tensor) -> States:
    """z* of every image, with F and the Jacobian there. The model itself is left as it is."""
    exact = copy.deepcopy(net).double().cpu().eval()
    body = cast(DEQBody, exact.body)
    layer = body.equilibrium
    settings = layer.settings[False]
    layer.settings[False] = replace(settings, tol=TOLERANCE, max_iter=4 * settings.max_iter)
    parts = []
    for images in x.double().cpu().split(_BATCH):
        h = body.extractor(exact.normalize(images))  # type: ignore[operator]
        z = layer.solve(h).z
        parts.append((z, layer.cell(z, h) - z, layer.cell.jacobian(z, h)))  # type: ignore[operator]
    z, field, jacobian = (torch.cat(part) for part in zip(*parts, strict=True))
    return States(z, field, jacobian)

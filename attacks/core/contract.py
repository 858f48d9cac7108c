"""What every attack must get right, in one place: authors write only the search.

`run_attack` checks the inputs, hands the search a model in eval mode without parameter gradients,
verifies the result on its own and puts the model back as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

import torch
from torch import Tensor, nn

from bench.attacks.core.draws import Draws

# In float32 |(x + ε) − x| exceeds ε by rounding on about a tenth of all pixels.
TOLERANCE = 1e-6

# (model, x, y, eps, draws) -> x_adv, options as keyword-only parameters.
Search = Callable[..., Tensor]


class ContractError(Exception):
    """An attack, or what it was given, breaks the contract; the message says how to mend it."""


def run_attack(
    search: Search, model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, draws: Draws, *, pixel_space: bool = True
) -> Tensor:
    """Adversarial images for x, (N, C, H, W), within the L∞ ball of radius eps and, in pixel space, in [0, 1].

    Args:
        search: the attack with its options bound.
        model: images to logits (N, classes).
        x: float images in [0, 1].
        y: labels, int64, (N,).
        eps: radius per example, (N,), ≥ 0, in the units of x.
        draws: the examples' random draws.
        pixel_space: false where a protocol attacks normalised tensors; then only shape and NaN are checked.

    Raises:
        ContractError: x is not in [0, 1], or the search's result breaks a bound. An output within
            the tolerance of 1e-6 is not touched.
    """
    x, eps = x.detach(), eps.detach()
    _check_inputs(x, y, eps, pixel_space)
    before = _fingerprint(model)
    with frozen(model):
        adversarial = search(model, x.clone(), y.clone(), eps.clone(), draws)
    if _fingerprint(model) != before:
        raise ContractError(f"{_name(search)} changed the model's weights or running statistics; attack a copy")
    if not isinstance(adversarial, Tensor):
        raise ContractError(f"{_name(search)} returned {type(adversarial).__name__}, not the images")
    adversarial = adversarial.detach().clone()  # whatever the search still does with its own
    _check_output(search, x, adversarial, eps, pixel_space)
    return adversarial


def linf(x: Tensor, adversarial: Tensor, unit: Tensor | None = None) -> Tensor:
    """‖adversarial − x‖∞ per example, (N,); `unit` is what a difference of 1 is worth, per channel (C, 1, 1)."""
    difference = (adversarial - x).abs_()
    return (difference.mul_(unit) if isinstance(unit, Tensor) else difference).flatten(1).amax(1)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode, no parameter gradients, and afterwards everything as it was."""
    modes = {module: module.training for module in model.modules()}
    wants = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    for parameter in wants:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, want in wants.items():
            parameter.requires_grad_(want)


def _fingerprint(model: nn.Module) -> bytes:
    """Figures of every parameter and buffer that a change of the model would move."""
    state = [t.detach() for t in (*model.parameters(), *model.buffers())]
    floats = [t if t.is_floating_point() else t.double() for t in state]
    figures = [figure for t in floats for figure in (t.sum(dtype=torch.float64), t.abs().sum(dtype=torch.float64))]
    # One transfer for all of them, not one a tensor.
    return torch.stack(figures).cpu().numpy().tobytes() if figures else b""


def _name(search: Search) -> str:
    inner = getattr(search, "func", search)  # of a partial
    return str(getattr(inner, "__name__", "the attack"))


def _check_inputs(x: Tensor, y: Tensor, eps: Tensor, pixel_space: bool) -> None:
    if x.ndim != 4 or len(x) != len(y) or eps.shape != y.shape:
        raise ContractError(
            f"expected images (N, C, H, W), labels (N,), eps (N,); "
            f"got {tuple(x.shape)}, {tuple(y.shape)}, {tuple(eps.shape)}"
        )
    if not bool((eps >= 0).all()):
        raise ContractError("eps must be 0 or more for every example")
    if not pixel_space or not len(x):
        return
    low, high = _extremes(x)
    if not (low >= 0 and high <= 1):
        raise ContractError(
            f"images must be in [0, 1], got min {low:.4g}, max {high:.4g}: "
            "scale bytes by 1/255 and put normalisation inside the model"
        )


def _extremes(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; both NaN where there is one."""
    low, high = torch.stack(torch.aminmax(x)).tolist()
    return low, high


def _check_output(search: Search, x: Tensor, adversarial: Tensor, eps: Tensor, pixel_space: bool) -> None:
    name = _name(search)
    if adversarial.shape != x.shape or adversarial.dtype != x.dtype:
        raise ContractError(
            f"{name} returned {tuple(adversarial.shape)} {adversarial.dtype} for {tuple(x.shape)} {x.dtype}"
        )
    if not len(x):
        return
    low, high = _extremes(adversarial)
    if not (isfinite(low) and isfinite(high)):
        raise ContractError(f"{name} returned images that are not finite: does the model's gradient hold NaN?")
    if not pixel_space:
        return
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ContractError(f"{name} left [0, 1]: min {low:.6g}, max {high:.6g}; clamp its result")
    excess = linf(x, adversarial) - eps
    if bool((excess > TOLERANCE).any()):
        worst = int(excess.argmax())
        raise ContractError(
            f"{name} left the ball: ‖δ‖∞ is {float(excess[worst] + eps[worst]):.6g} for eps {float(eps[worst]):.6g} "
            f"at example {worst} of the batch; project its result"
        )

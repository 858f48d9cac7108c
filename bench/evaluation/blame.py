"""Whose fault an error inside an attack is: the model's forward, the model's gradient, or the attack's own."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bench.attacks.core.contract import ContractError
from bench.errors import BenchError, first_line

WITHOUT = "--attacks 'autoattack[attacks=square]'"  # what needs no gradient

# torch's words for a gradient that is asked for and does not exist.
_NO_GRADIENT = ("does not require grad", "not have been used in the graph")


@contextmanager
def blamed(model: nn.Module) -> Iterator[None]:
    """Errors of the attack inside leave as ContractError that names who raised them.

    What the model's forward raises says so already (`Counted`). Out of memory is nobody's fault.
    """
    try:
        yield
    except (BenchError, ContractError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_GRADIENT):
            raise ContractError(without_gradient(model)) from None  # says all there is to say
        raise ContractError(_say(error)) from error


def without_gradient(model: nn.Module) -> str:
    """That a model's gradient is cut, and the way out."""
    solver = any(type(module).__module__.partition(".")[0] == "torchdeq" for module in model.modules())
    cause = (
        "torchdeq cuts it in eval(): keep its layer in training mode, or offer implicit()"
        if solver
        else "no_grad, detach, .data or numpy in its forward cuts it, or a solver in eval(): let it through (for an "
        "equilibrium, offer implicit(), or keep the gradient in eval())"
    )
    return f"the model's logits have no gradient with respect to the images; {cause}; without one there is {WITHOUT}"


def _say(error: Exception) -> str:
    through = (frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__))
    if any("torch/autograd/" in file for file in through):
        return f"the model's gradient cannot be taken, {first_line(error)}"
    return f"the attack raised {first_line(error)}"

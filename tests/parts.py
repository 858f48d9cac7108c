"""Parts of a model with the types they have: `nn.Module` says of an attribute only that it is a module or a tensor."""

from typing import TypeVar

from torch import Tensor, nn

from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.equilibrium.layer import Equilibrium

Part = TypeVar("Part", bound=nn.Module)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def submodule(net: nn.Module, name: str, kind: type[Part]) -> Part:
    """The submodule of this name, such as `body.0`, which is of this kind."""
    found = net.get_submodule(name)
    assert isinstance(found, kind), f"{name} is a {type(found).__name__}"
    return found


def equilibrium(net: nn.Module) -> Equilibrium:
    """The layer of a DEQ that is solved."""
    return submodule(net, "body.equilibrium", Equilibrium)


def implicit_cell(net: nn.Module) -> ImplicitCell:
    """The cell whose fixed point a DEQ is."""
    return submodule(net, "body.equilibrium.cell", ImplicitCell)


def statistics(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and running variance, (channels,) each."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def batches_seen(norm: BatchNorm) -> int:
    """How many batches its running statistics come from."""
    assert norm.num_batches_tracked is not None
    return int(norm.num_batches_tracked)


def gradient_of(leaf: Tensor) -> Tensor:
    """What backward left behind."""
    assert leaf.grad is not None
    return leaf.grad

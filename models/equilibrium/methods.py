"""Fixed-point methods by name, and the plainest of them: z ← f(z). The others have a file each."""

from typing import Literal

from torch import Tensor

from bench.models.equilibrium.anderson import Anderson
from bench.models.equilibrium.broyden import Broyden
from bench.models.equilibrium.newton import Jacobian, Newton
from bench.models.equilibrium.solve import Method

MethodName = Literal["anderson", "broyden", "fixed-point", "newton"]
SolverName = Literal["alternating", "anderson", "broyden", "fixed-point", "newton"]


class FixedPoint:
    """z ← f(z)."""

    def step(self, z: Tensor, fz: Tensor, h: Tensor) -> Tensor:
        return fz

    def keep_rows(self, rows: Tensor) -> None:
        pass


def make_method(name: SolverName, *, memory: int, beta: float, jacobian: Jacobian | None) -> Method:
    """A fresh method object.

    Args:
        name: which method.
        memory: Anderson's m ≥ 1, differences kept.
        beta: Anderson's mixing weight in (0, 1].
        jacobian: (z, h) -> (N, n, n); Newton needs it.

    Raises:
        ValueError: newton without a Jacobian; alternating, which is no step but a loop (`accelerate`).
    """
    if name == "alternating":
        raise ValueError("alternating solves each sample on its own, in evaluation alone")
    if name == "anderson":
        return Anderson(memory, beta)
    if name == "broyden":
        return Broyden()
    if name == "newton":
        if jacobian is None:
            raise ValueError("newton needs a layer with a closed-form Jacobian")
        return Newton(jacobian)
    return FixedPoint()

"""The options every implicit model has: how its equilibrium is solved and differentiated, twice."""

from dataclasses import dataclass
from typing import Any

from bench.models.equilibrium.gradient import GradientName
from bench.models.equilibrium.layer import FallbackName, Solver
from bench.models.equilibrium.methods import MethodName, SolverName

# These leave trained weights as they are: changing one never trains anew.
EVAL_OPTIONS = frozenset({"solver", "max_iter", "tol", "fallback", "gradient", "gradient_tol", "gradient_steps"})


@dataclass(frozen=True)
class SolverOptions:
    """Settings in evaluation, and `train_` ones in training; each is documented in bench.toml under [options.deq]."""

    solver: SolverName = "alternating"
    memory: int = 5
    beta: float = 1.0
    max_iter: int = 30
    tol: float = 1e-6
    fallback: FallbackName = "newton"
    gradient: GradientName = "exact"
    gradient_tol: float = 1e-6
    gradient_steps: int = 5
    train_solver: MethodName = "anderson"
    train_max_iter: int = 50
    train_tol: float = 1e-3
    train_gradient: GradientName = "implicit"
    train_gradient_tol: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("memory", "max_iter", "gradient_steps", "train_max_iter"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("tol", "gradient_tol", "train_tol", "train_gradient_tol", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def evaluation(self) -> Solver:
        return Solver(
            self.solver,
            self.memory,
            self.beta,
            self.max_iter,
            self.tol,
            self.fallback,
            self.gradient,
            self.gradient_tol,
            self.gradient_steps,
        )

    def training(self) -> Solver:
        return Solver(
            self.train_solver,
            self.memory,
            self.beta,
            self.train_max_iter,
            self.train_tol,
            "none",
            self.train_gradient,
            self.train_gradient_tol,
            self.gradient_steps,
        )


def idle(
    *, solver: SolverName, train_solver: MethodName, gradient: GradientName, train_gradient: GradientName, **_: Any
) -> dict[str, str]:
    """The options that change nothing beside these, with what they belong to."""
    found: dict[str, str] = {}
    if not {solver, train_solver} & {"alternating", "anderson"}:
        found |= dict.fromkeys(("memory", "beta"), "a solver that is alternating or anderson")
    if gradient != "implicit":
        found["gradient_tol"] = "gradient=implicit"
    if train_gradient != "implicit":
        found["train_gradient_tol"] = "train_gradient=implicit"
    if not {gradient, train_gradient} & {"unrolled", "phantom"}:
        found["gradient_steps"] = "a gradient that is unrolled or phantom"
    return found

"""Contexts as tests make them: a trained model by name, perhaps with something planted, under any attacks."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from torch import nn

from bench.attacks.core.draws import Draws
from bench.data.load import Dataset, as_pixels
from bench.diagnostics.context import Context
from bench.evaluation.input_space import Space
from bench.execution.matrix_rows import AttackPlan
from bench.registry import attack
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.job_identity import resolve_model

Plant = Callable[[nn.Module], nn.Module]
Attacks = Callable[[Fraction], dict[str, dict[str, Any]]]

RADII = tuple(Fraction(radius, 255) for radius in (4, 8, 32, 64))


def strong(eps: Fraction) -> dict[str, dict[str, Any]]:
    """A protocol nothing is wrong with: PGD with 100 steps that cross the ball two and a half times."""
    return {"pgd": {"steps": 100, "alpha": float(Fraction(5, 2) * eps / 100)}}


def make_case(
    name: str,
    trained: Callable[[str], nn.Module],
    data: Dataset,
    config: Config,
    *,
    plant: Plant = lambda net: net,
    attacks: Attacks = strong,
    radii: tuple[Fraction, ...] = RADII,
    space: Space = "pixel",
    twin: str = "",
    n: int = 0,
    canary: Fraction = Fraction(64, 255),
) -> Context:
    """The context of a model of the data set, on its first n test images (0: all), as `diagnosed_case` makes it.

    Args:
        plant: wraps the trained model, and every rebuilt one.
    """
    spec = parse_model(name)
    _, options = resolve_model(spec, config)

    def rebuild(replaced: Mapping[str, Any]) -> nn.Module:
        given = {**spec.architecture.options, **{key: str(value) for key, value in replaced.items()}}
        bracket = ",".join(f"{key}={value}" for key, value in given.items())
        architecture = f"{spec.architecture.name}[{bracket}]" if bracket else spec.architecture.name
        return plant(trained(f"{architecture}+{spec.recipe}" if spec.recipe else architecture)).eval()

    def plan(eps: Fraction) -> list[AttackPlan]:
        entries = [(attack[called], given) for called, given in attacks(eps).items()]
        return [AttackPlan(entry, entry.name, entry.resolve(given), eps) for entry, given in entries]

    x, y = as_pixels(data.x_test)[: n or None], data.y_test[: n or None]
    return Context(
        model=plant(trained(name)).eval(),
        twin=trained(twin) if twin else None,
        options=options,
        rebuild=rebuild,
        x=x,
        y=y,
        draws=Draws(0, data.test_hash, range(len(x))),
        radii=radii,
        plan=plan,
        space=space,
        canary=canary,
        held_out=(as_pixels(data.x_held_out)[: n or None], data.y_held_out[: n or None]),
    )

"""Planted violations of the stability claim are found by name, and a sound module passes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.models.lyapunov.function import Lyapunov
from bench.tables.verify_table import conclude
from bench.verification.equilibria import equilibria
from bench.verification.lyapunov import States, Verification, displacement, verify_lyapunov
from tests.bench.helpers import Inside, last_line
from tests.conftest import Trained

N = 12
DECAY, EQUILIBRIUM = "∇V·F̂ ≤ −αV", "z* is an equilibrium of F̂"


class Swapped(Lyapunov):
    """Eq. 8 with its cases as printed: project where φ ≤ 0."""

    def project(self, field: Tensor, z: Tensor, alpha: float, detached: bool = False) -> Tensor:
        value, gradient = self.value_and_gradient(z)
        phi = (gradient * field).sum(1) + alpha * value
        changed = field - (phi / gradient.square().sum(1).clamp_min(1e-30))[:, None] * gradient
        return torch.where((phi <= 0)[:, None], changed, field)


class NegativeU(Lyapunov):
    """Concave where the outer σ is active, which a large bias sees to."""

    def __init__(self, state: int, hidden: int, eta: float, d: float) -> None:
        super().__init__(state, hidden, eta, d)
        torch.nn.init.constant_(self.skip.bias, 50.0)

    @property
    def u(self) -> Tensor:
        return self.free_u - 1


class HalfGradient(Lyapunov):
    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = super().value_and_gradient(z)
        return value, gradient / 2


class Shifted(Lyapunov):
    """V(0) > 0, and V below 0 elsewhere."""

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = super().value_and_gradient(z)
        return 0.01 - value, -gradient


def module(kind: type[Lyapunov], eta: float = 1e-3) -> Lyapunov:
    torch.manual_seed(3)
    return kind(N, 16, eta, 0.1).double()


def states(n: int = 60) -> States:
    """Equilibria of a layer with J = ½·identity."""
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(n, N, generator=generator, dtype=torch.double)
    return States(z, torch.zeros_like(z), torch.eye(N, dtype=torch.double).expand(n, N, N) / 2)


def verify(lyapunov: Lyapunov, part: States | None = None) -> Verification:
    return verify_lyapunov(lyapunov, 0.9, {"clean": part or states()})


def test_a_sound_module_holds_and_its_states_are_no_equilibria() -> None:
    result = verify(module(Lyapunov))
    assert not result.broken("construction")
    assert result.broken("needed")[0] == EQUILIBRIUM
    (claim,) = (c for c in result.claims if c.name == EQUILIBRIUM)
    assert claim.violations == claim.n == 60 and claim.state == "WARN"
    assert "say nothing about z*" in conclude(result)[1] and "60 of 60" in conclude(result)[1]


@pytest.mark.parametrize(
    ("planted", "names"),
    [
        (lambda: module(Lyapunov, eta=0.0), {"V > 0 away from 0"}),
        (lambda: module(Swapped), {DECAY}),
        (lambda: module(NegativeU), {"U ≥ 0", "g is convex"}),
        (lambda: module(HalfGradient), {"∇V is the gradient of V"}),
        (lambda: module(Shifted), {"V(0) = 0", "V ≥ 0", "V > 0 away from 0"}),
    ],
    ids=["no η", "cases swapped", "negative U", "half a gradient", "upside down"],
)
def test_planted_violations_are_found_by_name(planted: Callable[[], Lyapunov], names: set[str]) -> None:
    result = verify(planted())
    assert set(result.broken("construction")) == names
    worst = {claim.name: claim.worst for claim in result.claims if claim.violations}
    assert all(worst[name] > 0 for name in names)
    assert all(name in conclude(result)[0] for name in names)


def test_swapped_cases_are_found_at_the_equilibria_themselves() -> None:
    found = [c for c in verify(module(Swapped)).claims if c.name == DECAY and c.where == "clean"]
    assert [c.violations for c in found] == [60], "at F = 0 nothing is projected, and nothing decays"


def test_eigenvalues_and_share_of_rescaled_states() -> None:
    unstable = states()
    jacobian = unstable.jacobian.clone()
    jacobian[:7, 0, 0] = 1.5
    result = verify(module(Lyapunov), States(unstable.z, unstable.field, jacobian))
    (eigen,) = (c for c in result.claims if c.name.startswith("all eigenvalues"))
    assert eigen.violations == 7 and eigen.worst == pytest.approx(0.5)
    (largest,) = (f for f in result.figures if f.name.startswith("largest real part"))
    assert largest.median == pytest.approx(-0.5) and largest.largest == pytest.approx(0.5)
    lyapunov = module(Lyapunov)
    below = int((lyapunov.icnn(unstable.z) <= lyapunov.icnn(torch.zeros(1, N, dtype=torch.double))).sum())
    (rescaled,) = (c for c in result.claims if c.name.startswith("g(z*) > g(0)"))
    assert rescaled.violations == below > 0
    # There F̂ is −αz/2, so its size is known.
    (size,) = (f for f in result.figures if f.name == "‖F̂(z*)‖ / ‖z*‖")
    assert size.largest >= 0.45 - 1e-9


def test_displacement_is_relative_to_the_clean_state() -> None:
    clean = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    found = displacement(clean, clean + torch.tensor([[0.0, 5.0], [1.0, 0.0]]), "deq")
    assert (found.n, found.largest) == (2, 1.0) and found.median == 0.5


def test_equilibria_of_a_trained_model_are_fixed_points(trained: Trained, images: tuple[Tensor, Tensor]) -> None:
    net = trained("deq")
    dtype = next(net.parameters()).dtype
    found = equilibria(net, images[0][:20])
    assert found.z.dtype == torch.double and next(net.parameters()).dtype == dtype
    assert float((found.field.norm(dim=1) / found.z.norm(dim=1)).max()) < 1e-9
    assert found.jacobian.shape == (20, 64, 64)


def test_verify_through_the_program(tmp_path: Path, inside: Inside) -> None:
    options = ("--epochs", "2", "--examples", "30")
    assert "bench train --models 'lyadeq'" in last_line(inside(tmp_path, "verify", "lyadeq", *options, code=2))
    inside(tmp_path, "train", "--models", "deq,lyadeq-no-orth", "--epochs", "2")
    out = inside(tmp_path, "verify", "lyadeq-no-orth", *options, "--eps", "4").stdout
    assert "PGD-20 at 4/255" in out and "FAIL" not in out and "V and the projection are what the paper says" in out
    content = json.loads(inside(tmp_path, "verify", "lyadeq-no-orth", *options, "--format", "json").stdout)
    assert {c["where"] for c in content["claims"]} >= {"clean", "adversarial", "sampled", "parameters"}
    moved = [f for f in content["figures"] if "Δz*" in f["name"]]
    assert [f["where"] for f in moved] == ["lyadeq-no-orth", "deq"] and all(f["median"] > 0 for f in moved)
    for other in ("deq", "fc-linear"):
        assert f"model '{other}' has no Lyapunov module" in last_line(inside(tmp_path, "verify", other, code=2))


def test_a_broken_module_ends_in_one_line(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside(tmp_path, "train", "--models", "lyadeq", "--epochs", "0")
    monkeypatch.setattr(Lyapunov, "project", Swapped.project)
    said = last_line(inside(tmp_path, "verify", "lyadeq", "--epochs", "0", "--examples", "5", code=2))
    assert "does not hold, and should by construction: lyadeq on digits: ∇V·F̂ ≤ −αV." in said

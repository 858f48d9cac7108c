"""Eq. 11's layer: closed-form Jacobian, and who may touch the running statistics."""

import torch

from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.equilibrium.layer import Equilibrium, Solver
from tests.parts import batches_seen, statistics


def make_cell(n: int = 8, std: float = 0.3) -> ImplicitCell:
    torch.manual_seed(0)
    cell = ImplicitCell(n).double()
    for linear in (cell.inner, cell.outer):
        torch.nn.init.normal_(linear.weight, std=std)
        torch.nn.init.normal_(linear.bias, std=0.3)
    for bn in (cell.inner_bn, cell.outer_bn):
        mean, variance = statistics(bn)
        mean.uniform_(-1, 1)
        variance.uniform_(0.5, 2)
        torch.nn.init.normal_(bn.weight)
    return cell.eval()


def test_jacobian_is_autograds() -> None:
    cell = make_cell()
    z, h = torch.randn(2, 5, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    for row in range(5):
        expected = torch.autograd.functional.jacobian(lambda s, r=row: cell(s, h[r : r + 1]), z[row : row + 1])
        torch.testing.assert_close(cell.jacobian(z, h)[row], expected[0, :, 0])


def test_training_updates_running_statistics_once_and_at_the_fixed_point() -> None:
    cell = make_cell(std=0.03)  # a contraction: batch statistics couple the samples here
    solver = Solver("anderson", 5, 1.0, 50, 1e-10, "none", "implicit", 1e-10, 5)
    layer = Equilibrium(cell, solver, solver).train()
    h = torch.randn(32, 8, dtype=torch.double)
    before = batches_seen(cell.outer_bn)
    old = statistics(cell.outer_bn)[0].clone()
    z = layer(h).detach()
    assert batches_seen(cell.outer_bn) == before + 1
    inner = torch.nn.functional.batch_norm(
        torch.relu(cell.inner(z)), None, None, cell.inner_bn.weight, cell.inner_bn.bias, training=True
    )
    seen = torch.relu(h + cell.outer(inner)).mean(0)
    torch.testing.assert_close(statistics(cell.outer_bn)[0], 0.9 * old + 0.1 * seen.detach(), rtol=1e-6, atol=1e-8)


def test_evaluation_leaves_running_statistics_alone() -> None:
    cell = make_cell()
    solver = Solver("anderson", 5, 1.0, 50, 1e-10, "none", "exact", 1e-10, 5)
    layer = Equilibrium(cell, solver, solver).eval()
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    layer(torch.randn(4, 8, dtype=torch.double))
    assert all(torch.equal(value, before[name]) for name, value in cell.state_dict().items())

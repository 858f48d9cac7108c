"""Penultimate features of any model."""

import pytest
import torch
from torch import Tensor, nn

from bench.models.images import Images
from bench.models.penultimate import penultimate
from bench.registry import model
from tests.parts import gradient_of

DIGITS = Images((1, 8, 8), 10, (0.3,), (0.38,))


@pytest.mark.parametrize("name", ["deq", "lyadeq", "resnet20", "vgg16", "fc-linear"])
def test_the_last_linear_layer_turns_them_into_logits(name: str) -> None:
    net = model[name].target(DIGITS).eval()
    x = torch.rand(5, *DIGITS.shape)
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    assert torch.allclose(last(penultimate(net, x)), net(x), atol=1e-5, rtol=1e-5)
    assert last.out_features == 10


def test_they_carry_the_gradient_and_leave_no_hook() -> None:
    net = model["resnet20"].target(DIGITS).eval()
    x = torch.rand(2, *DIGITS.shape, requires_grad=True)
    penultimate(net, x).sum().backward()
    assert float(gradient_of(x).abs().max()) > 0
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_models_own_method_wins_and_an_attribute_does_not() -> None:
    class Own(nn.Module):
        def features(self, x: Tensor) -> Tensor:
            return x.mean(1)

    class Attribute(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Flatten(), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(2 * self.features(x))

    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(penultimate(Own(), x), x.flatten(1))
    assert torch.equal(penultimate(Attribute(), x), 2 * x.flatten(1))
    with pytest.raises(ValueError, match="features"):
        penultimate(nn.Flatten(), x)

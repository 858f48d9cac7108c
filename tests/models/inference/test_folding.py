"""The folded model is the model, of all that are registered; one that says wrongly how it folds is not used."""

import copy
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from bench.attacks.core.sign_ascent import input_gradient
from bench.data.load import Dataset, as_pixels
from bench.evaluation.budget import Budget, Counted
from bench.models.images import Classifier, Images, Normalize
from bench.models.inference.folding import fold_scale, fold_sequence, folded, folded_for
from bench.registry import model
from tests.conftest import Trained

SMALL = Images((3, 16, 16), 10, (0.3, 0.4, 0.5), (0.2, 0.3, 0.25))


def stirred(net: nn.Module) -> nn.Module:
    """Weights and statistics as training might leave them, in float64 and eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values, low in (
                (module.running_mean, -0.3),
                (module.running_var, 0.5),
                (module.weight, 0.5),
                (module.bias, -0.3),
            ):
                assert values is not None
                values.data.copy_(low + torch.rand(values.shape, generator=generator))
    return net.double().eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "vgg16", "deq", "lyadeq", "fc-linear", "ibp-mondeq"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 8)])
def test_folded_models_and_their_gradients_are_the_models(name: str, shape: tuple[int, int, int]) -> None:
    images = Images(shape, 10, SMALL.mean[: shape[0]], SMALL.std[: shape[0]])
    torch.manual_seed(0)
    net = stirred(model[name].target(images, **({"tol": 1e-12, "max_iter": 200} if "deq" in name else {})))
    quick, x = folded(net), torch.rand(60, *shape, dtype=torch.float64)
    y = torch.arange(60) % 10
    torch.testing.assert_close(quick(x), net(x), rtol=1e-9, atol=1e-9)
    own, other = input_gradient(net, x, y), input_gradient(quick, x, y)
    assert float((own - other).abs().max()) < 1e-7 * float(own.abs().max())


def test_wide_resnets_and_conv_shortcuts_fold_too() -> None:
    from bench.models.resnet import ResNetFeatures
    from bench.models.wide_resnet import wide_resnet

    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    for net in (wide_resnet(SMALL, 10, 2), ResNetFeatures(3, 8, "conv")):
        quick = folded(stirred(net))
        torch.testing.assert_close(quick(x), net(x), rtol=1e-10, atol=1e-10)
        left = sum(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
        assert left < sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_the_model_itself_is_left_alone(trained: Trained, digits: Dataset) -> None:
    """With its orthogonal parametrisation, whose class a copy shares."""
    net, x = trained("lyadeq"), as_pixels(digits.x_test[:50])
    before, logits = copy.deepcopy(net.state_dict()), net(x)
    quick = folded_for(net, x)
    assert quick is not net and isinstance(quick.normalize, nn.Identity)
    torch.testing.assert_close(quick(x), logits, rtol=0, atol=1e-4)
    assert torch.equal(net(x), logits) and not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers[1](self.layers[0](x))
        return self.layers[2](torch.relu(hidden))  # the normalisation does not follow the linear layer

    def fold(self) -> None:
        fold_sequence(self.layers)


def test_a_model_that_folds_wrongly_is_searched_as_it_is() -> None:
    torch.manual_seed(0)
    net, x = stirred(Wrong()).float(), torch.rand(5, 1, 2, 2)
    assert not torch.allclose(folded(net)(x), net(x))
    assert folded_for(net, x) is net
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    assert folded_for(plain, x) is plain, "a module that does not say how it folds is left alone"


class Awkward(nn.Module):
    """A body that cannot be copied, or whose `fold` means something else."""

    def __init__(self, lock: bool, fold: bool) -> None:
        super().__init__()
        self.lock = threading.Lock() if lock else None
        if fold:
            self.fold = nn.Fold((2, 2), (2, 2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    "body",
    [
        Awkward(lock=True, fold=False),
        Awkward(lock=False, fold=True),
        nn.Sequential(nn.Flatten(), orthogonal(nn.Linear(4, 4)), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(2), nn.Linear(4, 3), nn.Flatten(), nn.Linear(9, 3)),
    ],
    ids=["uncopyable", "another fold", "parametrised", "channels apart"],
)
def test_a_model_that_cannot_be_folded_is_searched_as_it_is(body: nn.Module) -> None:
    shape = (3, 2, 2) if isinstance(body, nn.Sequential) and len(body) == 4 else (1, 2, 2)
    net = Classifier(Images(shape, 3, SMALL.mean[: shape[0]], SMALL.std[: shape[0]]), body).eval()
    x = torch.rand(5, *shape)
    before = net(x)
    assert folded_for(net, x) is net
    assert torch.equal(net(x), before)


class Rounding(Normalize):
    """A defence that leaves clean images, whole 255ths, as they are, and no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 255).round() / 255)


def test_a_normalisation_that_does_more_stays() -> None:
    net = Classifier(SMALL, nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))).eval()
    net.normalize = Rounding(SMALL)
    x = torch.randint(256, (5, *SMALL.shape)) / 255
    found = folded_for(net, x)
    assert float(input_gradient(found, x, torch.arange(5)).abs().max()) == 0


def test_all_batches_share_one_folded_copy_that_the_contract_does_not_see() -> None:
    torch.manual_seed(0)
    counted = Counted(stirred(model["vgg16"].target(SMALL)).float(), Budget(), 10)
    before = sum(1 for _ in counted.parameters())
    found = counted.folded(torch.rand(4, *SMALL.shape))
    assert found is counted.folded(torch.rand(3, *SMALL.shape)) and found.model is not counted.model
    assert sum(1 for _ in counted.parameters()) == before


def test_a_scale_is_folded_into_a_layer_without_a_bias() -> None:
    linear = nn.Linear(3, 2, bias=False).double()
    x, scale, shift = torch.rand(4, 3).double(), torch.rand(3).double(), torch.rand(3).double()
    expected = linear(scale * x + shift)
    fold_scale(linear, scale, shift)
    torch.testing.assert_close(linear(x), expected, rtol=1e-12, atol=1e-12)

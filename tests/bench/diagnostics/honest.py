"""Networks with nothing wrong with them, as people write them, trained on digits in seconds."""

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchdeq import get_deq

from bench.attacks.core.draws import Draws
from bench.attacks.gradient_sign import pgd

EPOCHS, BATCH = 30, 128


def tanh_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def max_pool() -> nn.Module:
    """Windows of 2×2 that tie where a digit's background is flat."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


class Transformer(nn.Module):
    """A vision transformer: patches of 2×2, two layers of two heads, the mean of the tokens read out."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        logits: Tensor = self.head(self.layers(tokens).mean(1))
        return logits


def fit(net: nn.Module, x: Tensor, y: Tensor, *, eps: Fraction = Fraction(0), epochs: int = EPOCHS) -> nn.Module:
    """Trained with Adam; adversarially (Madry et al. 2018, ten steps) where ε is above 0, which ramps up from 0."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        radius = float(eps) * min(1.0, 2 * epoch / epochs)
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            images, labels = x[rows], y[rows]
            if radius:
                draws = Draws(epoch, "fit", rows.tolist())
                reach = torch.full((len(rows),), radius)
                images = pgd(net, images, labels, reach, draws, steps=10, alpha=radius / 4)
            loss = functional.cross_entropy(net(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval().requires_grad_(False)


class TorchDEQ(nn.Module):
    """A layer of torchdeq, solved to 1e-6 and differentiated implicitly. Its layer stays in training mode: in eval mode
    torchdeq hands out an equilibrium without a gradient."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        solving = {"f_solver": "anderson", "f_max_iter": 60, "f_tol": 1e-6}
        self.deq = get_deq(ift=True, **solving, b_solver="anderson", b_max_iter=60, b_tol=1e-6)
        self.inject, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.weight = nn.Parameter(0.05 * torch.randn(width, width))

    def train(self, mode: bool = True) -> "TorchDEQ":
        super().train(mode)
        self.deq.train(True)
        return self

    def forward(self, x: Tensor) -> Tensor:
        injected = self.inject(x.flatten(1))
        weight = 0.7 * self.weight / self.weight.norm().clamp_min(0.7)  # a contraction
        found, _ = self.deq(lambda z: torch.relu(z @ weight.T + injected), torch.zeros_like(injected))
        logits: Tensor = self.head(found[-1])
        return logits

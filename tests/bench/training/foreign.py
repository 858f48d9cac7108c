"""A network as another project writes, names and saves it, and the declaration that loads its checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bench.data.load import Dataset
from bench.settings.config import Config, UserModel
from bench.settings.specs import parse_model
from bench.training.job_identity import make_job
from bench.training.loop import build_model

MEAN, STD = [0.2], [0.7]  # not those of digits


class TheirBlock(nn.Module):
    """A residual block as other projects write and name it."""

    def __init__(self, inside: int, outside: int, stride: int, convolution: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = None
        if convolution and stride == 2:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside)
            )
        self.stride, self.outside = stride, outside

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.outside // 4, self.outside // 4))
        return functional.relu(out + x)


class TheirResNet20(nn.Module):
    """Of one-channel images, with shortcuts of option A or of convolutions."""

    def __init__(self, convolution: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            blocks = [
                TheirBlock(widths[stage - (i == 0)], widths[stage], 2 if stage > 1 and i == 0 else 1, convolution)
                for i in range(3)
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def declare(config: Config, checkpoint: Path | None, **fields: Any) -> Config:
    user = UserModel(arch="resnet20", checkpoint=checkpoint, **{"mean": MEAN, "std": STD, **fields})
    return config.model_copy(update={"models": {"my-net": user}})


def load_declared(config: Config, digits: Dataset) -> nn.Module:
    return build_model(make_job(parse_model("my-net"), digits, config, seed=0), digits).eval()


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value.contiguous() for key, value in state.items()}


FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "bare.pth": torch.save,
    "nested.th": lambda state, path: torch.save(
        {"epoch": 3, "state_dict": state, "best_prec1": 91.25}, path, _use_new_zipfile_serialization=False
    ),
    "parallel.th": lambda state, path: torch.save({"state_dict": prefixed(state, "module.")}, path),
    "model.pt": lambda state, path: torch.save({"model": state, "optimizer": {"lr": 0.1}}, path),
    "net.pt": lambda state, path: torch.save({"net": prefixed(state, "module."), "acc": 91.2, "epoch": 1}, path),
    "compiled.pt": lambda state, path: torch.save(prefixed(state, "_orig_mod.module."), path),
    "twice.pt": lambda state, path: torch.save({"model": {"state_dict": state}}, path),
    "bare.safetensors": save_file,
    "parallel.safetensors": lambda state, path: save_file(prefixed(state, "module."), path),
    "old.pth": lambda state, path: torch.save(
        {key: value for key, value in state.items() if "num_batches" not in key}, path
    ),
    "fc.pth": lambda state, path: torch.save({k.replace("linear.", "fc."): v for k, v in state.items()}, path),
}

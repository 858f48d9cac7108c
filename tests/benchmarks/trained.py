"""The model that a benchmark measures: from a checkpoint, or trained first."""

import argparse
from pathlib import Path

import torch
from torch import nn

from bench.data.load import Dataset, load
from bench.settings.config import load_config
from bench.settings.specs import parse_model
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model, train

ROOT = Path(__file__).resolve().parents[2]


def options(model: str, about: str | None, *, dataset: str = "mnist", repeats: int = 5) -> argparse.ArgumentParser:
    """What every benchmark takes, with these defaults; `about`: its docstring, whose first line is shown.

    Args:
        model: default of --model, or of --models where it names several.
    """
    parser = argparse.ArgumentParser(description=(about or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--models" if "," in model else "--model", default=model)
    parser.add_argument("--dataset", default=dataset)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--checkpoints", type=Path, default=Path("results/checkpoints"))
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def trained(name: str, dataset: str, data_dir: Path, checkpoints: Path) -> tuple[nn.Module, Dataset]:
    """The model in eval mode, on the CPU, and its data set."""
    config, data = load_config(ROOT / "bench.toml"), load(dataset, data_dir)
    job = make_job(parse_model(name), data, config, 0)
    weights = job.checkpoint(checkpoints)
    if not weights.exists():
        weights = train(job, data, checkpoints, torch.device("cpu"), config.train)
    net = build_model(job, data)
    load_weights(weights, net)
    return net.eval(), data

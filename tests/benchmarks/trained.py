"""The model that a benchmark measures: from a checkpoint, or trained first."""

import argparse
from pathlib import Path

import torch
from torch import nn

from bench.config import load_config
from bench.data.load import Dataset, load
from bench.names import parse_model
from bench.training.checkpoint import load_weights
from bench.training.job import make_job
from bench.training.loop import build_model, train

ROOT = Path(__file__).resolve().parents[2]


def options(model: str) -> argparse.ArgumentParser:
    """What every benchmark of a model takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=model)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--checkpoints", type=Path, default=Path("results/checkpoints"))
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def trained(given: argparse.Namespace) -> tuple[nn.Module, Dataset]:
    """The model in eval mode, on the CPU, and its data set."""
    config, data = load_config(ROOT / "bench.toml"), load(given.dataset, given.data_dir)
    job = make_job(parse_model(given.model), data, config, 0)
    weights = job.checkpoint(given.checkpoints)
    if not weights.exists():
        weights = train(job, data, given.checkpoints, torch.device("cpu"), config.train)
    net = build_model(job, data)
    load_weights(weights, net)
    return net.eval(), data

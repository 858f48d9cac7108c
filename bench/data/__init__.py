"""Data sets: the embedded `digits`, torchvision's, and any `<data dir>/<name>.npz`."""

from bench.data import builtin
from bench.data.load import Dataset, load

__all__ = ["Dataset", "builtin", "load"]

"""How models are trained. Importing this registers the built-in recipes."""

from bench.training.recipes import adversarial, ibp, robust_dataset
from bench.training.recipes import standard as recipes

__all__ = ["adversarial", "ibp", "recipes", "robust_dataset"]

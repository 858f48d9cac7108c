"""How models are trained. Importing this registers the built-in recipes."""

from bench.training import adversarial, ibp, recipes, robust_dataset

__all__ = ["adversarial", "ibp", "recipes", "robust_dataset"]

"""How models are trained. Importing this registers the built-in recipes."""

from bench.training import ibp, recipes

__all__ = ["ibp", "recipes"]

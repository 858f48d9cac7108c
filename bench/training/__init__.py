"""How models are trained. Importing this registers the built-in recipes."""

from bench.training import recipes

__all__ = ["recipes"]

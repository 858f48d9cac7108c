"""Adversarial-robustness benchmark for deep equilibrium models: the harness."""

__version__ = "0.1.0"

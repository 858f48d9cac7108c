"""Monotone layers, and proven bounds of their equilibria."""

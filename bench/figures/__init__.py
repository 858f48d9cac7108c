"""Figures: the paper's, and those that its claims call for."""

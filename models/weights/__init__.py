"""Weights trained elsewhere: read without running code, names mapped to ours."""

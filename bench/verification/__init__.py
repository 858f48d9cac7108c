"""Stored numbers and a model's claims, looked at again."""

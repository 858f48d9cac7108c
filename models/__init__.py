"""What is attacked. Importing this registers every built-in model."""

from models import deq, extractors

__all__ = ["deq", "extractors"]

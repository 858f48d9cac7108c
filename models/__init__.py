"""What is attacked. Importing this registers every built-in model."""

from models import deq, extractors, mondeq

__all__ = ["deq", "extractors", "mondeq"]

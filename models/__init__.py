"""What is attacked. Importing this registers every built-in model."""

from models import deq, extractors, resnet, vgg, wide_resnet

__all__ = ["deq", "extractors", "resnet", "vgg", "wide_resnet"]

"""What is attacked. Importing this registers every built-in model."""

from bench.models import deq, feature_extractors, mondeq, resnet, robustbench, vgg, wide_resnet

__all__ = ["deq", "feature_extractors", "mondeq", "resnet", "robustbench", "vgg", "wide_resnet"]

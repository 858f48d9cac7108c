"""How it is attacked. Importing this registers every built-in attack and protocol."""

from bench.attacks import adaptive, apgd, autoattack, gradient_sign, margin_search, protocols
from bench.attacks import torchattacks as peers

__all__ = ["adaptive", "apgd", "autoattack", "gradient_sign", "margin_search", "peers", "protocols"]

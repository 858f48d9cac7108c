"""How it is attacked. Importing this registers every built-in attack and protocol."""

from attacks import adaptive, apgd, autoattack, gradient_sign, peers, protocols

__all__ = ["adaptive", "apgd", "autoattack", "gradient_sign", "peers", "protocols"]

"""How it is attacked. Importing this registers every built-in attack and protocol."""

from attacks import autoattack, gradient_sign, peers, protocols

__all__ = ["autoattack", "gradient_sign", "peers", "protocols"]

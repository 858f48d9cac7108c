"""How it is attacked. Importing this registers every built-in attack and protocol."""

from attacks import gradient_sign, peers, protocols

__all__ = ["gradient_sign", "peers", "protocols"]

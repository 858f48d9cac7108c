"""What attacks are made of: contract, draws, losses, signed ascent, cascades."""

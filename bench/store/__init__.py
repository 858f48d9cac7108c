"""Cells on disk: identity and key, shards of outcomes, kept images, manifests."""

"""What was asked for: bench.toml, names with options, radii, plugins."""

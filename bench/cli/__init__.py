"""The command line: options to configuration, results to text. No logic of its own."""

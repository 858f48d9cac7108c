"""A run: planned, predicted, shared out among workers and computed."""

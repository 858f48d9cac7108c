"""What is printed of the store: rows, statistics, tables."""

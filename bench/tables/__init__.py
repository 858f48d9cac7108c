"""What is printed of the store: rows and tables."""

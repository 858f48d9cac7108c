"""The page of results: one HTML file that needs nothing but itself."""

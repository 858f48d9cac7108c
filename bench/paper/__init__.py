"""What the paper printed: Tables 1 to 3 as data, and where they and the text disagree."""

"""A method small enough to test the loop with: it fits a line."""

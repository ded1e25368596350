"""What `make docs` adds to docs/: a page a method from its card and settings, a page a room from docstrings, working links."""

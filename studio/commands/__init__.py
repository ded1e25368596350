"""The commands of the terminal: each collects flags and calls one use-case."""

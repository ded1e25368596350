"""FLUX.1 Fill dev."""

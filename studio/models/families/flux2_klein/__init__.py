"""FLUX.2 klein, and the base models that it was distilled from."""

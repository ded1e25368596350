"""FLUX.1 Kontext dev."""

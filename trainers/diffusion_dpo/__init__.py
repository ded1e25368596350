"""Diffusion-DPO: learning from pairs of a better and a worse picture."""

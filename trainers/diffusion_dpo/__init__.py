"""Diffusion-DPO: learning from pairs of a better and a worse picture."""

from trainers.diffusion_dpo.config import DiffusionDpo

__all__ = ["DiffusionDpo"]

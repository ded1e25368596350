"""DDPO: reinforcement learning of the denoiser."""

from trainers.ddpo.config import Ddpo

__all__ = ["Ddpo"]

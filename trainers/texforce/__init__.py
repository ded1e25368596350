"""TexForce: reinforcement learning of the text encoder."""

from trainers.texforce.config import TexForce

__all__ = ["TexForce"]

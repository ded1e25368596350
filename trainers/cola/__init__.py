"""COLA: a multimodal adapter that tells which attribute belongs to which object."""

from trainers.cola.config import Cola

__all__ = ["Cola"]

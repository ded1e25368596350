"""DRaFT and its family: back-propagation of a reward through the last sampler steps."""

from trainers.draft.config import Draft

__all__ = ["Draft"]

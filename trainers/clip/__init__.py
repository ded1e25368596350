"""Finetuning of dual encoders: contrastive, probes, learned prompts, adapters."""

from trainers.clip.config import Clip

__all__ = ["Clip"]

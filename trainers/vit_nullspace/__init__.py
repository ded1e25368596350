"""Nullspace finetuning: train on token noise that the encoder ignores."""

from trainers.vit_nullspace.config import VitNullspace

__all__ = ["VitNullspace"]

"""Finetuning of image classifiers: whole, head only, adapters, bottlenecks, chosen blocks."""

from trainers.vit.config import Vit

__all__ = ["Vit"]

"""Supervised finetuning of vision-language models on conversations about pictures."""

from trainers.vlm.config import Vlm

__all__ = ["Vlm"]

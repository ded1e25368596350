"""Captioner: maximum likelihood, then discriminative finetuning by a retrieval reward."""

from trainers.captioner.config import Captioner

__all__ = ["Captioner"]

"""Adversarial training: PGD-AT and TRADES."""

from trainers.adversarial.config import Adversarial

__all__ = ["Adversarial"]

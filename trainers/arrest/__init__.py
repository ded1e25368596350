"""ARREST: adversarial finetuning that keeps the clean representations."""

from trainers.arrest.config import Arrest

__all__ = ["Arrest"]

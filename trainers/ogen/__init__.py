"""OGEN: finetuning that keeps the names it is not trained on."""

from trainers.ogen.config import Ogen

__all__ = ["Ogen"]

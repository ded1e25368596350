"""Textual inversion: learn a new word; every weight of the model stays as it is."""

from trainers.textual_inversion.config import TextualInversion

__all__ = ["TextualInversion"]

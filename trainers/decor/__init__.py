"""DECOR: take unwanted meaning out of a prompt's embedding while sampling; nothing is trained."""

from trainers.decor.config import Decor

__all__ = ["Decor"]

"""JeDi: joint-image diffusion, a subject from reference pictures without finetuning."""

from trainers.jedi.config import Jedi

__all__ = ["Jedi"]

"""DreamBooth: bind a rare word to one subject.

from trainers.dreambooth import DreamBooth, DreamBoothTrainer
"""

from typing import TYPE_CHECKING, Any

from trainers.dreambooth.config import DreamBooth

if TYPE_CHECKING:
    from trainers.dreambooth.trainer import DreamBoothTrainer

__all__ = ["DreamBooth", "DreamBoothTrainer"]


def __getattr__(name: str) -> Any:
    """Import the trainer, and torch with it, only when it is asked for."""
    if name == "DreamBoothTrainer":
        from trainers.dreambooth.trainer import DreamBoothTrainer

        return DreamBoothTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

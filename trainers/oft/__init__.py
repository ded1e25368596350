"""OFT: controllable generation with a hint encoder and rotated layers.

Subject-driven generation with OFT is DreamBooth with `--adapter oft` (or boft): the paper changes the weights' freedom
there, not the objective. What its paper adds as a method is here: pictures that follow edges or a layout of colors.

from trainers.oft import OftControl, OftControlTrainer
"""

from typing import TYPE_CHECKING, Any

from trainers.oft.config import OftControl

if TYPE_CHECKING:
    from trainers.oft.trainer import OftControlTrainer

__all__ = ["OftControl", "OftControlTrainer"]


def __getattr__(name: str) -> Any:
    """Import the trainer, and torch with it, only when it is asked for."""
    if name == "OftControlTrainer":
        from trainers.oft.trainer import OftControlTrainer

        return OftControlTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

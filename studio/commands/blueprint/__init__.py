"""Blueprint: denoising finetuning with LoRA.

from studio.commands.blueprint import Blueprint, BlueprintTrainer
"""

from typing import TYPE_CHECKING, Any

from studio.commands.blueprint.config import Blueprint

if TYPE_CHECKING:
    from studio.commands.blueprint.trainer import BlueprintTrainer

__all__ = ["Blueprint", "BlueprintTrainer"]


def __getattr__(name: str) -> Any:
    """Import the trainer, and torch with it, only when it is asked for."""
    if name == "BlueprintTrainer":
        from studio.commands.blueprint.trainer import BlueprintTrainer

        return BlueprintTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

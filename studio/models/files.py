"""Reads diffusers pipelines from a folder or the hub, and says plainly what is wrong with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from studio.catalog import component_settings, model_folder
from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.checkpoints.hub import first_line, hub_folder


def from_folder(folder: Path, dtype: torch.dtype, **given: Any) -> DiffusionPipeline:
    """The pipeline in a diffusers folder; components in `given` take the place of its own.

    Raises:
        StudioError: It is not one, is of a kind we do not know, or a file in it is damaged.
    """
    known = model_folder.of_folder(folder)
    if known.refusal or known.card is None or known.path is None:
        raise StudioError(known.refusal, field="model")
    check_library(known.card)
    return read(known.path, dtype, variant=known.weights, **given)


def read(folder: Path, dtype: torch.dtype, *, variant: str = "", **given: Any) -> DiffusionPipeline:
    """The pipeline of a folder whose own parts, or those in `given`, are whole.

    Raises:
        StudioError: The libraries cannot read it.
    """
    listed = component_settings.values(folder / "model_index.json")
    leave_out: dict[str, Any] = {key: None for key in model_folder.NOT_NEEDED if key in listed}
    leave_out |= absent(folder)
    if "requires_safety_checker" in listed or "safety_checker" in listed:
        leave_out |= {"safety_checker": None, "requires_safety_checker": False}
    with readable(folder):
        return DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            variant=variant or None,
            **leave_out | given,
        )


def from_hub(name: str, dtype: torch.dtype, revision: str, **given: Any) -> DiffusionPipeline:
    """The pipeline of a hub name, from the local cache (HF_HOME) where it is there."""
    folder = hub_folder(name, revision, half=dtype == torch.float16)
    return from_folder(folder, dtype, **given)


def check_library(card: FamilyCard) -> None:
    """Refuse a family whose pipeline the installed diffusers lacks."""
    if not hasattr(diffusers, card.pipeline):
        raise StudioError(
            f"{card.title} needs diffusers {card.since} or newer for its {card.pipeline}, and {diffusers.__version__} is "
            "installed; update it with `pip install --upgrade diffusers`.",
            field="model",
        )


def absent(folder: Path) -> dict[str, None]:
    """Parts that the index of a diffusers folder lists as not there, such as SD3's T5: diffusers wants to hear it again."""
    listed = component_settings.values(folder / "model_index.json")
    return {key: None for key, value in listed.items() if value == [None, None]}


_UNREADABLE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, ImportError, RuntimeError,
               SafetensorError)  # fmt: skip
"""What the libraries raise over settings that are not what they expect."""


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """Turn what libraries raise over bad files into one sentence."""
    try:
        yield
    except _UNREADABLE as error:
        raise StudioError(
            f"The model {source} cannot be loaded: {first_line(error)}.", field="model"
        ) from error

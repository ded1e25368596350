"""Files of adapters onto a model: in any dialect by our own reader, or by diffusers' loader, to see that it takes them."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from studio.adapters.build import activate
from studio.adapters.dialects.reading import Reading, read_updates
from studio.adapters.dialects.roles import UNREAD, role_of
from studio.adapters.files import read
from studio.adapters.patched import put_updates
from studio.catalog.family import FamilyCard
from studio.errors import StudioError


def is_adapter(values: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of an adapter, read or known and not read."""
    return any(role_of(key) is not None or any(part in key for part in UNREAD) for key in values)


def read_adapter(path: Path, card: FamilyCard, modules: Mapping[str, nn.Module]) -> Reading:
    """The updates that a file holds.

    Args:
        path: The file.
        card: The family of the model.
        modules: Its parts, by component.

    Raises:
        StudioError: The file cannot be read, or does not fit the model; it names the file.
    """
    values, header = read(path)
    try:
        return read_updates(values, header, card, modules)
    except StudioError as error:
        raise StudioError(f"{path}: {error}", field=error.field) from error


def load_adapter(path: Path, card: FamilyCard, modules: Mapping[str, nn.Module], name: str) -> Reading:
    """Put a file's adapter on a model's parts, beside those that are there.

    Raises:
        StudioError: The file cannot be read, or does not fit the model; nothing is put on it.
    """
    found = read_adapter(path, card, modules)
    for component, layers in found.updates.items():
        put_updates(layers, modules[component], name)
    return found


def load_by_diffusers(pipeline: DiffusionPipeline, path: Path, name: str) -> None:
    """Put a file on a pipeline's models through diffusers' own loader.

    Raises:
        StudioError: It does not take the file.
    """
    try:
        with warnings.catch_warnings(), _one_voice():
            # Stacking is meant; and where warnings are errors, diffusers turns this one into a KeyError.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            pipeline.load_lora_weights(str(path), adapter_name=name)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:  # diffusers' ways to say it
        told = str(error).strip().splitlines()[0].rstrip(".")
        raise StudioError(f"diffusers does not read {path}: {told}; export another format.") from error
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            activate(module)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Keep diffusers from listing every layer that does not fit: our own sentence names the first."""
    logger = logging.getLogger("diffusers.loaders.peft")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

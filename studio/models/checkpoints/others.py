"""Parts that take the place of a model's own: another autoencoder, other text encoders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from studio.catalog.component_settings import values
from studio.catalog.family import Part
from studio.catalog.recognize import HUB_NAME
from studio.catalog.single_file import AUTOENCODER
from studio.errors import StudioError
from studio.models.checkpoints.fill import converted, empty, filled, unfit, weights_in
from studio.models.files import readable
from studio.settings.sampling import Parts


def others(parts: Parts, architecture: Mapping[str, Part], dtype: torch.dtype) -> dict[str, nn.Module]:
    """The networks that a person gave, by diffusers' component names.

    Args:
        parts: What was given.
        architecture: The model's parts: what is given has to fit them.
        dtype: Dtype of the networks.

    Raises:
        StudioError: One is not there, or fits no part of the model.
    """
    found: dict[str, nn.Module] = {}
    if parts.vae:
        found["vae"] = _autoencoder(parts.vae, architecture["vae"], dtype)
    for place in parts.text_encoder:
        name, encoder = _text_encoder(place, architecture, dtype)
        found[name] = encoder
    return found


def _autoencoder(place: str, part: Part, dtype: torch.dtype) -> nn.Module:
    """The autoencoder of a file, a folder or the hub."""
    path = Path(place).expanduser()
    if path.suffix.lower() == ".safetensors":
        module = empty(part)
        return filled(module, converted(module, part, _stripped(path, AUTOENCODER)), dtype, place)
    folder = path / "vae" if (path / "vae").is_dir() else path
    if not folder.is_dir() and not HUB_NAME.match(place):
        raise _nowhere(place, "vae")
    named = str(values(folder / "config.json").get("_class_name", part.cls))
    with readable(folder):
        source: Any = folder if folder.is_dir() else place
        module = getattr(diffusers, named).from_pretrained(source, dtype=dtype, use_safetensors=True)
    wanted = empty(part)
    for setting in ("latent_channels", "z_dim"):
        own, theirs = wanted.config.get(setting), module.config.get(setting)
        if own != theirs:
            raise StudioError(
                f"The autoencoder {place} makes {theirs} channels, and the model works on {own}; give one of its family.",
                field="parts.vae",
            )
    return module


def _text_encoder(place: str, architecture: Mapping[str, Part], dtype: torch.dtype) -> tuple[str, nn.Module]:
    """A text encoder of a file or a folder, and the component that it fits."""
    path = Path(place).expanduser()
    encoders = {name: part for name, part in architecture.items() if name.startswith("text_encoder")}
    if path.is_dir():
        own = values(path / "config.json")
        for name, part in encoders.items():
            settings = empty(part).config.to_dict()
            if all(
                settings.get(key) == own.get(key)
                for key in ("model_type", "hidden_size", "d_model")
                if key in own
            ):
                with readable(path):
                    return name, getattr(transformers, part.cls).from_pretrained(
                        path, dtype=dtype, use_safetensors=True
                    )
        raise _fits_none(place, encoders)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise _nowhere(place, "text_encoder")
    state = _stripped(path, ())
    for name, part in encoders.items():
        module = empty(part)
        own_state = converted(module, part, state)
        if not unfit(module, own_state):
            return name, filled(module, own_state, dtype, place)
    raise _fits_none(place, encoders)


def _stripped(path: Path, starts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A file's tensors, without what a whole model's file has in front of them."""
    state = weights_in(path)
    start = next((s for s in starts if any(key.startswith(s) for key in state)), "")
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _fits_none(place: str, encoders: Mapping[str, Part]) -> StudioError:
    named = ", ".join(f"{name} ({part.cls})" for name, part in encoders.items())
    return StudioError(
        f"The text encoder {place} fits none of the model's: {named}; give one of its family.",
        field="parts.text_encoder",
    )


def _nowhere(place: str, what: str) -> StudioError:
    return StudioError(
        f"There is no {place}; --parts.{what.replace('_', '-')} takes a .safetensors file or a folder.",
        field=f"parts.{what}",
    )

"""Loads a family by name: embedded, tiny random, diffusers folder, single file, or hub."""

import dataclasses
import logging
import re
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from studio import assets
from studio.backend.core import Backend
from studio.catalog import families, outside
from studio.catalog.family import load as imported
from studio.catalog.recognize import recognize
from studio.errors import StudioError, unknown
from studio.models.base import Family, card_of
from studio.models.files import from_folder, from_hub
from studio.models.prepare import prepare
from studio.models.single_file import from_file
from studio.models.tiny import SIZE, T5_TOKENS
from studio.settings.sampling import Text

log = logging.getLogger(__name__)

EMBEDDED = "studio-tiny"
EMBEDDED_MODELS = (EMBEDDED, "studio-tiny-dit")
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def load(
    name: str, backend: Backend, *, text: Text = Text(), dtype: torch.dtype | None = None, revision: str = ""
) -> Family:
    """A family on the backend's device, frozen and in evaluation mode.

    Args:
        name: `studio-tiny`, `studio-tiny-dit`; `tiny:sdxl` or another family (random weights); a diffusers folder; a `.safetensors`
            checkpoint; a short name such as `sdxl`; a hub name; or a family of your own, `folder/my_family.py:load`: a
            function (backend, text) that gives a `Family` with its weights.
        backend: Where and how precisely.
        text: How prompts become embeddings.
        dtype: Dtype to read weights in; the backend's if not given. Full finetuning wants float32.
        revision: Branch, tag or commit on the hub; empty for the newest.

    Raises:
        StudioError: The name, folder or file cannot be used.
    """
    if ":" in name and "://" not in name and not name.startswith("tiny:"):
        return prepare(_own(name, backend, text), backend)
    small = name.startswith("tiny:") or (name == EMBEDDED and not assets.exists(f"models/{EMBEDDED}"))
    if small:
        parts, text = _tiny(name, backend), _short_t5(text)
    else:
        parts = _read(name, backend, dtype or backend.dtype, revision)
    family = prepare(card_of(parts).load_model()(parts, backend, text), backend)
    family.variant = recognize(name).variant
    if small:
        family.default_size = SIZE
    return family


def _own(name: str, backend: Backend, text: Text) -> Family:
    """A family from outside."""
    found = outside.load(name, what="Model", field="model")(backend, text)
    if not isinstance(found, Family):
        raise StudioError(
            f"Model {name!r} gave a {type(found).__name__}; its function takes (backend, text) and gives a "
            "studio.models.base.Family.",
            field="model",
        )
    return found


def _tiny(name: str, backend: Backend) -> DiffusionPipeline:
    key = name.removeprefix("tiny:")
    if name == EMBEDDED:
        log.warning(
            "The embedded model %s is absent; a tiny model with random weights takes its place.", name
        )
        key = "sd1"
    if key not in families.cards():
        raise unknown("tiny model", name, _tiny_names(), field="model")
    with backend.seeded(0):
        return imported(families.cards()[key].tiny)()


def _tiny_names() -> list[str]:
    return [f"tiny:{name}" for name in families.cards()]


def _short_t5(text: Text) -> Text:
    return dataclasses.replace(text, t5_tokens=text.t5_tokens or T5_TOKENS)


def _read(name: str, backend: Backend, dtype: torch.dtype, revision: str) -> DiffusionPipeline:
    if name in EMBEDDED_MODELS:
        return from_folder(assets.path(f"models/{name}"), backend, dtype)
    path = Path(name).expanduser()
    if path.is_dir():
        return from_folder(path, backend, dtype)
    if path.suffix in _PICKLES:
        raise StudioError(
            f"{name} is a pickle, which can run code when read; convert it to .safetensors first.",
            field="model",
        )
    if path.suffix == ".safetensors":
        return from_file(path, backend, dtype)
    known = families.short_names()
    if name in known or _HUB_NAME.match(name):
        return from_hub(known.get(name, name), backend, dtype, revision)
    raise unknown("model", name, [*EMBEDDED_MODELS, *_tiny_names(), *known], field="model")

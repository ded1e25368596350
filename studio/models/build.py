"""Loads a family by name: embedded, tiny random, diffusers folder, single file, or hub."""

import dataclasses
import logging
import re
from pathlib import Path

import torch
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import T5EncoderModel

from studio import assets
from studio.backend.core import Backend
from studio.catalog import outside
from studio.errors import StudioError, unknown
from studio.models.base import Family
from studio.models.dit import Flux, StableDiffusion3
from studio.models.files import from_folder, from_hub
from studio.models.prepare import prepare
from studio.models.single_file import from_file
from studio.models.tiny import T5_TOKENS, TINY
from studio.models.unet import StableDiffusion, StableDiffusionXL
from studio.settings.sampling import Text

log = logging.getLogger(__name__)

FAMILIES: dict[type[DiffusionPipeline], type[Family]] = {
    StableDiffusionPipeline: StableDiffusion,
    StableDiffusionXLPipeline: StableDiffusionXL,
    StableDiffusion3Pipeline: StableDiffusion3,
    FluxPipeline: Flux,
}
EMBEDDED = "studio-tiny"
EMBEDDED_MODELS = (EMBEDDED, "studio-tiny-dit")
SHORT_NAMES = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd3": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd35": "stabilityai/stable-diffusion-3.5-medium",
    "flux-dev": "black-forest-labs/FLUX.1-dev",
    "flux-schnell": "black-forest-labs/FLUX.1-schnell",
}
"""Names people use, and where the hub keeps them."""
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def load(
    name: str, backend: Backend, *, text: Text = Text(), dtype: torch.dtype | None = None, revision: str = ""
) -> Family:
    """A family on the backend's device, frozen and in evaluation mode.

    Args:
        name: `studio-tiny`, `studio-tiny-dit`; `tiny:sd1|sd2|sdxl|sd3|flux` (random weights); a diffusers folder; a `.safetensors`
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
    if name.startswith("tiny:") or (name == EMBEDDED and not assets.exists(f"models/{EMBEDDED}")):
        parts = _tiny(name, backend)
        text = _short_t5(text, parts)
    else:
        parts = _read(name, backend, dtype or backend.dtype, revision)
    kind = next((family for pipeline, family in FAMILIES.items() if type(parts) is pipeline), None)
    if kind is None:
        raise unknown("kind of pipeline", type(parts).__name__, [k.__name__ for k in FAMILIES], field="model")
    return prepare(kind(parts, backend, text), backend)


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
    if key not in TINY:
        raise unknown("tiny model", name, [f"tiny:{one}" for one in TINY], field="model")
    with backend.seeded(0):
        return TINY[key]()


def _short_t5(text: Text, parts: DiffusionPipeline) -> Text:
    reads = any(isinstance(part, T5EncoderModel) for part in parts.components.values())
    return dataclasses.replace(text, t5_tokens=text.t5_tokens or T5_TOKENS) if reads else text


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
    if name in SHORT_NAMES or _HUB_NAME.match(name):
        return from_hub(SHORT_NAMES.get(name, name), backend, dtype, revision)
    raise unknown(
        "model", name, [*EMBEDDED_MODELS, *(f"tiny:{one}" for one in TINY), *SHORT_NAMES], field="model"
    )

"""Loads a family by name: embedded, tiny random, diffusers folder, single file, or hub."""

import dataclasses
import logging
from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline
from transformers import T5EncoderModel

from studio.backend.core import Backend
from studio.backend.simulated import mode as simulated
from studio.catalog import families, model_folder, outside
from studio.catalog.family import FamilyCard, Part
from studio.catalog.family import load as imported
from studio.catalog.recognize import Known, is_own, recognize, usable
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.checkpoints.others import others
from studio.models.checkpoints.ready import ready
from studio.models.checkpoints.single import from_file, settings_beside
from studio.models.files import check_library, from_folder, from_hub
from studio.models.kind import card_of
from studio.models.prepare import prepare
from studio.models.pretended import pretended
from studio.models.quantized import quantize
from studio.models.text import tell_unread
from studio.models.tiny import SIZE, T5_TOKENS
from studio.settings.sampling import Parts, Text

log = logging.getLogger(__name__)

EMBEDDED = "studio-tiny"
EMBEDDED_MODELS = (EMBEDDED, "studio-tiny-dit")


def load(
    name: str,
    backend: Backend,
    *,
    text: Text = Text(),
    parts: Parts = Parts(),
    dtype: torch.dtype | None = None,
    revision: str = "",
) -> Family:
    """A family on the backend's device, frozen and in evaluation mode.

    Args:
        name: `studio-tiny`, `studio-tiny-dit`; `tiny:sdxl` or another family (random weights); a diffusers folder; a `.safetensors`
            checkpoint; a short name such as `sdxl`; a hub name; or a family of your own, `folder/my_family.py:load`: a
            function (backend, text) that gives a `Family` with its weights.
        backend: Where and how precisely.
        text: How prompts become embeddings.
        parts: What the model's file does not say of itself, and parts in place of its own.
        dtype: Dtype to read weights in; the backend's if not given. Full finetuning wants float32.
        revision: Branch, tag or commit on the hub; empty for the newest.

    Raises:
        StudioError: The name, folder or file cannot be used.
    """
    if is_own(name):
        return prepare(_own(name, backend, text), backend)
    given = text
    small = name == EMBEDDED and recognize(name).kind != "embedded"
    known = recognize(name) if small else usable(name, parts)
    small = small or known.kind == "tiny"
    if small:
        pipeline = _tiny(name, backend)
        text = _short_t5(text, pipeline)
    else:
        pipeline = _read(name, known, backend, dtype or backend.dtype, revision=revision, parts=parts)
    card = card_of(pipeline)
    tell_unread(given, card)
    if backend.hardware.quantize != "none":
        _quantize(pipeline, card, backend)
    family = prepare(card.load_model()(pipeline, backend, text), backend)
    family.variant = known.variant
    family.default_size = known.pixels or family.default_size
    if small:
        family.default_size = SIZE
    return family


def _quantize(pipeline: DiffusionPipeline, card: FamilyCard, backend: Backend) -> None:
    """Store the denoiser and the encoders that no method trains in fewer bits."""
    coding, parts = backend.hardware.quantize, pipeline.components
    frozen = [key for key in parts if key.startswith("text_encoder") and key not in card.words.trains]
    for key in (card.denoiser, *frozen):
        if parts[key] is not None:
            count = quantize(parts[key], coding, backend.device, backend.dtype)
            log.info("%s: %d layers in %s", key, count, coding)


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
    with backend.seeded(0):
        return imported(families.cards()[key].tiny)()


def _short_t5(text: Text, parts: DiffusionPipeline) -> Text:
    reads = any(isinstance(part, T5EncoderModel) for part in parts.components.values())
    return dataclasses.replace(text, t5_tokens=text.t5_tokens or T5_TOKENS) if reads else text


def _read(
    name: str, known: Known, backend: Backend, dtype: torch.dtype, *, revision: str, parts: Parts
) -> DiffusionPipeline:
    """The pipeline of what a name, folder or file is."""
    for note in known.notes:
        log.warning("%s", note)
    hub = families.short_names().get(name, name)
    if known.card is not None:
        check_library(known.card)
    if (machine := simulated.current()) and known.card and (known.variant or known.path):
        return pretended(machine, known.card, architecture_of(known), dtype, known.variant, known.path)
    given = others(parts, architecture_of(known), dtype) if parts.vae or parts.text_encoder else {}
    if known.kind == "file":
        return ready(from_file(known, dtype, given))
    if known.path is not None:
        found = from_folder(known.path, dtype, **given)
    else:
        found = from_hub(hub, dtype, revision, **given)
    return ready(found, parts.prediction)


def architecture_of(known: Known) -> Mapping[str, Part]:
    """The parts of a model: as its folder has them, else as published."""
    folder = settings_beside(known.path) if known.kind == "file" and known.path else known.path
    if folder is not None:
        return dict(model_folder.components(folder))
    if known.variant is not None:
        return known.variant.architecture
    raise StudioError(
        "Parts can be given for a model whose family is known before it is loaded: a folder, a file or a short name.",
        field="parts",
    )

"""A checkpoint in one file, to a pipeline.

The file holds weights alone. Settings come from a diffusers folder of the same name beside it (`model.safetensors`, `model/`),
else from the family's card; CLIP's words from open_clip's vocabulary; other tokenizers, and networks that the file lacks, from
the published model on the hub or in its cache.
"""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from studio.catalog import model_folder
from studio.catalog.family import FamilyCard, Part, Variant
from studio.catalog.known import Known
from studio.errors import StudioError
from studio.models.architecture import component
from studio.models.checkpoints.fill import converted, empty, filled, weights_in
from studio.models.checkpoints.hub import hub_folder
from studio.models.files import read, readable
from studio.models.tokenizers import clip_tokenizer

log = logging.getLogger(__name__)


def from_file(known: Known, dtype: torch.dtype, given: Mapping[str, Any]) -> DiffusionPipeline:
    """The pipeline of a checkpoint.

    Args:
        known: What it is.
        dtype: Dtype of its networks.
        given: Components that take the place of its own.

    Raises:
        StudioError: Its weights do not fit, or what it lacks is nowhere.
    """
    path, card = known.path, known.card
    beside = settings_beside(path) if path else None
    if path is None or card is None or (known.variant is None and beside is None):
        raise StudioError(known.refusal or f"Nothing tells what {known.path} is.", field="model")
    architecture = _architecture(known, beside)
    built = dict(given)
    with readable(path):
        for name, start in known.starts.items():
            if name not in built:
                built[name] = _network(path, start, architecture[name], dtype)
    built |= _left_out(card, built)
    if beside is not None:
        return read(beside, dtype, **built)
    built["scheduler"] = component(_scheduler(known, architecture["scheduler"]))
    missing = [name for name in known.lacks if name not in built]
    if known.variant and (base := _published(path, card, known.variant, missing)):
        return read(base, dtype, **built)
    return _whole(card, built)


def _architecture(known: Known, beside: Path | None) -> Mapping[str, Part]:
    """The parts: as the settings beside the file have them, else as published."""
    if beside is not None:
        return dict(model_folder.components(beside))
    return known.variant.architecture if known.variant else {}


def settings_beside(path: Path) -> Path | None:
    """The folder of settings of a checkpoint, where there is one."""
    folder = path.with_suffix("")
    return folder if (folder / "model_index.json").is_file() else None


def _network(path: Path, start: str, part: Part, dtype: torch.dtype) -> torch.nn.Module:
    """One network of a file."""
    module = empty(part)
    state = converted(module, part, weights_in(path, start))
    return filled(module, state, dtype, f"{path} ({start or 'the whole file'})")


def _left_out(card: FamilyCard, built: Mapping[str, Any]) -> dict[str, None]:
    """Text encoders that the model does without, with their tokenizers."""
    names = [name for name in card.recognize.optional if name not in built]
    return dict.fromkeys([*names, *(name.replace("text_encoder", "tokenizer") for name in names)])


def _scheduler(known: Known, part: Part) -> Part:
    """The published scheduler with what the file says of itself."""
    if known.prediction == "flow":
        return part
    own = dict(part.config) | {"prediction_type": known.prediction}
    if not known.zero_snr:
        return replace(part, config=own)
    zero = own | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    accepted = inspect.signature(getattr(diffusers, part.cls)).parameters
    if zero.keys() <= accepted.keys():
        return replace(part, config=zero)
    known_there = inspect.signature(diffusers.DDIMScheduler).parameters
    kept = {key: value for key, value in zero.items() if key in known_there}
    return Part("DDIMScheduler", kept | {"clip_sample": False, "set_alpha_to_one": False})


def _published(path: Path, card: FamilyCard, variant: Variant, missing: list[str]) -> Path | None:
    """The folder of the published model, where the file lacks something that only it has."""
    encoders = [name for name in card.recognize.text if name not in card.recognize.optional]
    words = [name.replace("text_encoder", "tokenizer") for name in encoders]
    elsewhere = [*missing, *(name for name in words if name not in card.words.pads)]
    if not elsewhere:
        return None
    log.info("%s lacks %s; taken from %s.", path, ", ".join(elsewhere), variant.hub)
    try:
        return hub_folder(variant.hub, only=missing)
    except StudioError as error:
        way = " or give --parts.vae and --parts.text-encoder" if missing else ""
        raise StudioError(
            f"{path} holds no {', '.join(elsewhere)}, which {variant.hub} has{way}. {error}", field="model"
        ) from error


def _whole(card: FamilyCard, built: dict[str, Any]) -> DiffusionPipeline:
    """A pipeline of networks and a scheduler, with CLIP's tokenizers."""
    for name, pad in card.words.pads.items():
        if name not in built:
            built[name] = clip_tokenizer(pad_token=pad)
    kind = getattr(diffusers, card.pipeline)
    wanted = inspect.signature(kind.__init__).parameters
    empty_ones = {
        name: None
        for name, parameter in wanted.items()
        if parameter.default is inspect.Parameter.empty and name != "self"
    }
    quiet = {"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}
    return kind(**empty_ones | quiet | built)

"""What a file of an adapter is: for people, and for machines."""

import json
from collections.abc import Mapping
from typing import Any

from studio.weights.structure import Opened

READERS = {
    "kohya": "A1111, Forge, ComfyUI, sd-scripts, OneTrainer, diffusers",
    "LyCORIS": "ComfyUI, LyCORIS, SimpleTuner",
    "OneTrainer": "OneTrainer, ComfyUI",
    "ComfyUI": "ComfyUI, ai-toolkit, diffusion-pipe, diffusers",
    "diffusers": "diffusers, ComfyUI, ai-toolkit, SimpleTuner",
    "PEFT": "PEFT with its adapter_config.json, ComfyUI for some families",
    "XLabs": "XLabs' x-flux, diffusers",
    "diffusers' attention processors": "diffusers, ComfyUI",
}
"""Programs known to read a dialect; of kinds beside LoRA, those that have the kind."""


def facts(found: Opened) -> dict[str, Any]:
    """Facts by name: what it is, for which model, its parts, its words, its precision, what its metadata say, who reads it."""
    layers = {component: len(own) for component, own in found.reading.updates.items()}
    trigger = found.header.get("modelspec.trigger_phrase", "") or _tags(found.header)
    told = {
        "what": found.line,
        "model": f"{found.structure.title} ({found.structure.card.name})",
        "layers": ", ".join(f"{component} {number}" for component, number in layers.items()),
        "precision": ", ".join(
            sorted({str(value.dtype).removeprefix("torch.") for value in found.values.values()})
        ),
        "trigger": trigger,
        "words": ", ".join(found.reading.words),
        "base": found.header.get("ss_sd_model_name", ""),
        "steps": found.header.get("ss_steps", ""),
        "license": found.header.get("modelspec.license", ""),
        "readers": READERS.get(found.reading.dialect, ""),
    }
    return {key: value for key, value in told.items() if value}


def _tags(header: Mapping[str, str]) -> str:
    """The most frequent tag of the training captions, where sd-scripts kept them."""
    folders = json.loads(header.get("ss_tag_frequency") or "{}")
    counts = {tag: number for tags in folders.values() for tag, number in tags.items()}
    return max(counts, key=lambda tag: counts[tag]).strip() if counts else ""

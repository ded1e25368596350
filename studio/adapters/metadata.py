"""What a LoRA file tells about itself: modelspec 1.0.1 and the `ss_` keys of sd-scripts that other tools read.

modelspec: https://github.com/Stability-AI/ModelSpec. The `ss_` keys are those A1111, Forge and ComfyUI show or use.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor, uint8

from studio.adapters.config import Export
from studio.models.base import Family
from studio.records import texts


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a run and worth telling in its files and on its model card.

    Attributes:
        base_model: Name or path of the base model.
        steps, seed: Optimizer steps and seed.
        tags: Folder to tag to count, as sd-scripts has them.
        scores: Scores by name.
        samples: Pictures for the model card.
    """

    base_model: str = ""
    steps: int = 0
    seed: int = 0
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Path] = ()


PREDICTIONS = {"eps": "epsilon", "v": "v", "flow": "flow"}


def header(family: Family, tensors: Mapping[str, Tensor], settings: Export, facts: Facts) -> dict[str, str]:
    """Metadata of a safetensors file; all values are text, as the format wants."""
    if settings.strip_metadata:
        return {"format": "pt"}
    digest = content_hash(tensors)
    told = {
        "format": "pt",
        **_modelspec(family, settings, digest),
        **_sd_scripts(family, tensors, settings, facts),
        **_text(family),
        "sshs_model_hash": digest,
    }
    return {key: value for key, value in told.items() if value}


def _text(family: Family) -> dict[str, str]:
    """How text was read: for us, and the skipped layers as others count them, from 1."""
    skipped = str(family.text.clip_skip + 1) if family.text.clip_skip else ""
    told = {"ss_clip_skip": skipped, "modelspec.encoder_layer": skipped}
    return {texts.KEY: texts.written(family.text), **told}


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors' names and bytes, whatever the metadata."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].contiguous().flatten().view(uint8).numpy().tobytes())
    return digest.hexdigest()


def _modelspec(family: Family, settings: Export, digest: str) -> dict[str, str]:
    size = family.default_size
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family.card.names.modelspec}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": settings.name,
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": PREDICTIONS[family.prediction],
        "modelspec.trigger_phrase": settings.trigger,
        "modelspec.author": settings.author,
        "modelspec.description": settings.description,
        "modelspec.license": settings.license,
        "modelspec.date": datetime.now(UTC).isoformat(timespec="seconds"),
        "modelspec.hash_sha256": f"0x{digest}",
    }


def _sd_scripts(
    family: Family, tensors: Mapping[str, Tensor], settings: Export, facts: Facts
) -> dict[str, str]:
    ranks = [
        len(value) for key, value in tensors.items() if key.endswith((".lora_down.weight", ".lora_A.weight"))
    ]
    alphas = [float(value) for key, value in tensors.items() if key.endswith(".alpha")]
    rank = max(set(ranks), key=ranks.count)
    return {
        "ss_network_module": family.card.names.network,
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(max(set(alphas), key=alphas.count) if alphas else float(rank)),
        "ss_base_model_version": family.card.names.base_version,
        "ss_v2": str(family.card.names.base_version.startswith("sd_v2")),
        "ss_output_name": settings.name,
        "ss_sd_model_name": facts.base_model,
        "ss_steps": str(facts.steps) if facts.steps else "",
        "ss_seed": str(facts.seed),
        "ss_resolution": f"({family.default_size}, {family.default_size})",
        "ss_tag_frequency": json.dumps(facts.tags) if facts.tags else "",
    }

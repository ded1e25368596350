"""What a LoRA file tells about itself: modelspec 1.0.1 and the `ss_` keys of sd-scripts that other tools read.

modelspec: https://github.com/Stability-AI/ModelSpec. The `ss_` keys are those A1111, Forge and ComfyUI show or use.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

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


_DOWN = (".lora_down.weight", ".lora_A.weight", ".hada_w1_b", ".lokr_w2_b")
"""Ends of the tensors that have as many rows as the rank."""
_ALGORITHMS = {".hada_w1_a": "loha", ".lokr_w": "lokr", ".dora_scale": "lora"}
"""What LyCORIS calls what sd-scripts has not, by a part of its keys."""


def header(
    family: Family,
    tensors: Mapping[str, Tensor],
    settings: Export,
    facts: Facts,
    *,
    kind: str = "/lora",
    native: bool = False,
) -> dict[str, str]:
    """Metadata of a safetensors file; all values are text, as the format wants.

    Args:
        family: The model.
        tensors: What the file holds.
        settings: What to tell, or that nothing is to be told.
        facts: What is known about the run.
        kind: What modelspec's architecture says after the model: an adapter, or nothing of a whole model.
        native: The keys are those of the original code, as sd-scripts' are, and not diffusers'.
    """
    if settings.strip_metadata:
        return {"format": "pt"}
    scripts = _sd_scripts(family, tensors, settings, facts) if kind else {}
    scripts = {key: value for key, value in {**scripts, **_text(family)}.items() if value}
    digest, legacy = hashes(tensors, scripts)
    told = {
        "format": "pt",
        **_modelspec(family, settings, digest),
        "modelspec.architecture": architecture(family) + kind,
        "modelspec.implementation": family.card.names.implementation if native else "diffusers",
        **scripts,
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy,
    }
    return {key: value for key, value in told.items() if value}


def architecture(family: Family) -> str:
    """Modelspec's name of the model: the variant's own where it has one."""
    return (family.variant.modelspec if family.variant else "") or family.card.names.modelspec


def _text(family: Family) -> dict[str, str]:
    """How text was read: for us, and the skipped layers as others count them, from 1."""
    skipped = str(family.text.clip_skip + 1) if family.text.clip_skip else ""
    told = {"ss_clip_skip": skipped, "modelspec.encoder_layer": skipped}
    return {texts.KEY: texts.written(family.text), **told}


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """sd-scripts' two hashes of a file: SHA-256 of all after its header, and the first 8 digits of 64 KiB at 1 MiB.

    The second counts from the start of a file whose metadata are the `ss_` keys alone, so that later ones do not change it.
    """
    kept = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    whole = memoryview(save({key: value.contiguous() for key, value in tensors.items()}, kept))
    start = 8 + int.from_bytes(whole[:8], "little")
    legacy = hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    return hashlib.sha256(whole[start:]).hexdigest(), legacy


def _modelspec(family: Family, settings: Export, digest: str) -> dict[str, str]:
    size = family.default_size
    return {
        "modelspec.sai_model_spec": "1.0.1",
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
    ranks = [len(value) for key, value in tensors.items() if key.endswith(_DOWN)]
    alphas = [float(value) for key, value in tensors.items() if key.endswith(".alpha")]
    rank = max(set(ranks), key=ranks.count) if ranks else ""
    algorithm = next((name for part, name in _ALGORITHMS.items() if any(part in key for key in tensors)), "")
    return {
        "ss_network_module": "lycoris.kohya" if algorithm else family.card.names.network,
        "ss_network_args": json.dumps({"algo": algorithm}) if algorithm else "",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(max(set(alphas), key=alphas.count) if alphas else float(rank))
        if ranks
        else "",
        "ss_base_model_version": family.card.names.base_version,
        "ss_v2": str(family.card.names.base_version.startswith("sd_v2")),
        "ss_output_name": settings.name,
        "ss_sd_model_name": facts.base_model,
        "ss_steps": str(facts.steps) if facts.steps else "",
        "ss_seed": str(facts.seed),
        "ss_resolution": f"({family.default_size}, {family.default_size})",
        "ss_tag_frequency": json.dumps(facts.tags) if facts.tags else "",
    }

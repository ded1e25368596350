"""FLUX.1 Kontext: FLUX.1 dev that also looks at a picture to be changed. Without one it draws as FLUX.1 does."""

from dataclasses import replace

from studio.catalog.family import Recognize
from studio.models.families.flux.card import DEV, LORA, NAMES
from studio.models.families.flux.card import FAMILY as FLUX

FAMILY = replace(
    FLUX,
    name="flux-kontext",
    title="FLUX.1 Kontext",
    model="studio.models.families.flux_kontext.model:FluxKontext",
    tiny="studio.models.families.flux_kontext.tiny:build",
    variants=(
        replace(
            DEV,
            name="flux-kontext-dev",
            hub="black-forest-labs/FLUX.1-Kontext-dev",
            also=("flux-kontext", "flux1-kontext-dev"),
            title="FLUX.1 Kontext dev",
            guidance=2.5,
            tells={},
        ),
    ),
    recognize=Recognize(pipelines=("FluxKontextPipeline",), lora=LORA, kin=("flux",)),
    names=replace(NAMES, modelspec="flux-1-kontext-dev"),
    references=1,
)
"""Guidance of diffusers' example; LoRA files have FLUX.1's names (sd-scripts and ComfyUI read both alike)."""

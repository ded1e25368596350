"""Chroma: FLUX.1 schnell without its guidance, read by T5 alone with a mask over all padding but the first token."""

from dataclasses import replace

from studio.catalog.family import FamilyCard, Part, Recognize, Variant, Words
from studio.models.families import parts
from studio.models.families.flux.card import LAYERS, LORA, NAMES, blocks

_HD = Variant(
    name="chroma",
    hub="lodestones/Chroma1-HD",
    also=("chroma-hd", "chroma1-hd"),
    title="Chroma1 HD",
    steps=40,
    guidance=3.0,
    license="apache-2.0",
    architecture={
        "transformer": Part("ChromaTransformer2DModel"),
        "vae": parts.autoencoder16(0.3611, 0.1159),
        "scheduler": parts.flow(shift=3.0, use_dynamic_shifting=True),
        "text_encoder": parts.T5_XXL,
    },
)
"""Steps and guidance of its own card (40 and 3.0)."""
_GUIDANCE = {
    "distilled_guidance_layer.layers": (
        "distilled_guidance_layer.layers",
        {"in_layer": ("linear_1",), "out_layer": ("linear_2",)},
    )
}
_TOP = {name: NAMES.top[name] for name in ("x_embedder", "context_embedder", "proj_out")}

FAMILY = FamilyCard(
    name="chroma",
    title="Chroma",
    model="studio.models.families.chroma.model:Chroma",
    tiny="studio.models.families.chroma.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(_HD,),
    recognize=Recognize(
        pipelines=("ChromaPipeline",), keys=("distilled_guidance_layer.in_proj.bias",), lora=LORA
    ),
    words=Words(length=512, mask=True, reads=("t5_tokens",)),
    layers=LAYERS,
    names=replace(
        NAMES,
        modelspec="chroma",
        base_version="chroma",
        implementation="https://huggingface.co/lodestones/Chroma",
        text={},
        blocks={**blocks(), **_GUIDANCE},
        top=_TOP,
    ),
)

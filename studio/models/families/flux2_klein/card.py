"""FLUX.2 klein of 4 and 9 billion weights: Qwen3's rows before the picture; klein draws in 4 steps, klein-base is trained."""

from dataclasses import replace

from studio.catalog.family import FamilyCard, Part, Recognize, Variant, Words
from studio.models.families import flux2_parts, parts

_SMALL = flux2_parts.architecture(
    flux2_parts.transformer(
        joint_attention_dim=7680,
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        guidance_embeds=False,
    ),
    Part("Qwen3ForCausalLM", parts.QWEN3_4B, "transformers"),
)
_LARGE = flux2_parts.architecture(
    flux2_parts.transformer(
        joint_attention_dim=12288,
        num_layers=8,
        num_single_layers=24,
        num_attention_heads=32,
        guidance_embeds=False,
    ),
    Part(
        "Qwen3ForCausalLM",
        parts.QWEN3_4B | {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
        "transformers",
    ),
)
_BASE = Variant(
    name="klein-base-4b",
    hub="black-forest-labs/FLUX.2-klein-base-4B",
    also=("klein-base", "flux2-klein-base-4b"),
    title="FLUX.2 klein base 4B",
    steps=50,  # README of github.com/black-forest-labs/flux2: base 50 steps, distilled 4
    guidance=4.0,
    license="apache-2.0",
    architecture=_SMALL,
    tells={"index.is_distilled": False, "transformer.num_layers": 5},
)
_LARGE_BASE = replace(
    _BASE,
    name="klein-base-9b",
    hub="black-forest-labs/FLUX.2-klein-base-9B",
    also=("flux2-klein-base-9b",),
    title="FLUX.2 klein base 9B",
    license="flux-non-commercial-license",  # the same README; 4B: Apache 2.0
    gated=True,
    architecture=_LARGE,
    tells={"index.is_distilled": False, "transformer.num_layers": 8},
    keys=("double_blocks.7.img_attn.qkv.weight", "transformer_blocks.7.attn.to_q.weight"),
)

FAMILY = FamilyCard(
    name="flux2-klein",
    title="FLUX.2 klein",
    model="studio.models.families.flux2_klein.model:Flux2Klein",
    tiny="studio.models.families.flux2_klein.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(
        _BASE,
        _LARGE_BASE,
        replace(
            _BASE,
            name="klein-4b",
            hub="black-forest-labs/FLUX.2-klein-4B",
            also=("klein", "flux2-klein-4b"),
            title="FLUX.2 klein 4B",
            steps=4,
            guidance=1.0,
            distilled=True,
            instead="klein-base-4b",
            tells={"index.is_distilled": True, "transformer.num_layers": 5},
        ),
        replace(
            _LARGE_BASE,
            name="klein-9b",
            hub="black-forest-labs/FLUX.2-klein-9B",
            also=("flux2-klein-9b",),
            title="FLUX.2 klein 9B",
            steps=4,
            guidance=1.0,
            distilled=True,
            instead="klein-base-9b",
            tells={"index.is_distilled": True, "transformer.num_layers": 8},
        ),
    ),
    recognize=Recognize(pipelines=("Flux2KleinPipeline",), keys=flux2_parts.KEYS, lora=flux2_parts.LORA),
    words=Words(length=512, weights=False),
    layers=flux2_parts.LAYERS,
    schedule=flux2_parts.SCHEDULE,
    names=flux2_parts.names("Flux.2-klein", "flux_2_klein"),
    fp32=("vae",),  # its file says force_upcast, which its class forgets
    references=4,  # docs.bfl.ai, Image Editing Overview: 4B and 9B up to 4
)

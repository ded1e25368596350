"""FLUX.2 dev: Mistral Small 3.1's rows before the picture, and the guidance scale as an input."""

from studio.catalog.family import FamilyCard, Part, Recognize, Variant, Words
from studio.models.families import flux2_parts

_MISTRAL = Part(
    "Mistral3ForConditionalGeneration",
    {
        "image_token_index": 10,
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
        "text_config": {
            "model_type": "mistral",
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 131072,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000000.0,
            "sliding_window": None,
        },
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "head_dim": 64,
            "hidden_act": "silu",
            "image_size": 1540,
            "patch_size": 14,
            "rope_theta": 10000.0,
        },
    },
    "transformers",
)

FAMILY = FamilyCard(
    name="flux2",
    title="FLUX.2 dev",
    model="studio.models.families.flux2.model:Flux2",
    tiny="studio.models.families.flux2.tiny:build",
    denoiser="transformer",
    process="flow",
    guidance="input",
    variants=(
        Variant(
            name="flux2-dev",
            hub="black-forest-labs/FLUX.2-dev",
            also=("flux2",),
            title="FLUX.2 dev",
            steps=50,  # steps and guidance: docs/flux2_dev_hf.md of github.com/black-forest-labs/flux2
            guidance=4.0,
            license="flux-dev-non-commercial-license",  # as its page and its conversions name it
            gated=True,
            architecture=flux2_parts.architecture(flux2_parts.transformer(), _MISTRAL),
        ),
    ),
    recognize=Recognize(
        pipelines=("Flux2Pipeline",),
        keys=flux2_parts.KEYS,
        shapes={"txt_in.weight": (None, 3 * 5120), "context_embedder.weight": (None, 3 * 5120)},
        lora=flux2_parts.LORA,
    ),
    words=Words(length=512, weights=False),
    layers=flux2_parts.LAYERS,
    schedule=flux2_parts.SCHEDULE,
    names=flux2_parts.names("Flux.2-dev", "flux_2_dev"),
    fp32=("vae",),  # its file says force_upcast, which its class forgets
    # What the maker names for FLUX.2 (docs.bfl.ai, Overview); for dev it recommends 6 at most (Image Editing Overview).
    references=10,
)

"""Krea 2: a single stream over rows of Qwen3-VL and the picture. Raw is what people train, Turbo what they draw with."""

from dataclasses import replace

from studio.catalog.family import FamilyCard, Layers, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

_RAW = Variant(
    name="krea2",
    hub="krea/Krea-2-Raw",
    also=("krea-2", "krea2-raw"),
    title="Krea 2 Raw",
    # Recommended by its README (github.com/krea-ai/krea-2): 52 steps, cfg 3.5, Turbo 8 and 0; its 0 is our 1.
    steps=52,
    guidance=4.5,
    license="krea-2-community",
    architecture={
        "transformer": Part("Krea2Transformer2DModel"),
        "vae": parts.AUTOENCODER_QWEN,
        "scheduler": parts.flow(use_dynamic_shifting=True, max_image_seq_len=6400),
        "text_encoder": Part("Qwen3VLModel", parts.QWEN3_VL_4B, "transformers"),
    },
    tells={"index.is_distilled": False},
)
_ATTENTION = {
    "attn.wq": ("attn.to_q",),
    "attn.wk": ("attn.to_k",),
    "attn.wv": ("attn.to_v",),
    "attn.wo": ("attn.to_out.0",),
    "attn.gate": ("attn.to_gate",),
    "mlp.gate": ("ff.gate",),
    "mlp.up": ("ff.up",),
    "mlp.down": ("ff.down",),
}
"""Layers of a block: the original checkpoint's names to diffusers'."""

FAMILY = FamilyCard(
    name="krea2",
    title="Krea 2",
    model="studio.models.families.krea2.model:Krea2",
    tiny="studio.models.families.krea2.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(
        _RAW,
        replace(
            _RAW,
            name="krea2-turbo",
            hub="krea/Krea-2-Turbo",
            also=("krea-2-turbo",),
            title="Krea 2 Turbo",
            steps=8,
            guidance=1.0,
            distilled=True,
            instead="krea2",
            tells={"index.is_distilled": True},
        ),
    ),
    recognize=Recognize(
        pipelines=("Krea2Pipeline",),
        keys=("text_fusion.projector.weight", "txtfusion.projector.weight"),
        lora=("text_fusion.", "txtfusion", "attn.to_gate", "attn.wq", "attn_wq"),
    ),
    words=Words(length=512, mask=True, weights=False),
    layers=Layers(
        # All linear layers of the blocks, as the authors recommend and musubi-tuner trains (`networks/lora_krea2.py`).
        auto=("to_q", "to_k", "to_v", "to_out.0", "to_gate", "ff.gate", "ff.up", "ff.down"),
        more=("img_in", "final_layer.linear", "time_mod_proj", "txt_in.linear_1", "txt_in.linear_2"),
        entry="img_in",
        stacks=("transformer_blocks",),
        text="first",
        text_only=("text_fusion.",),
    ),
    # musubi-tuner's `--discrete_flow_shift 2.5` (`docs/krea2.md`): what pictures of 1024 px are drawn with.
    schedule=Schedule(training_shift=2.5),
    names=Names(
        modelspec="Krea-2",
        base_version="krea2",
        network="networks.lora_krea2",
        scheme="blocks",
        blocks={
            "transformer_blocks": ("blocks", _ATTENTION),
            "text_fusion.layerwise_blocks": ("txtfusion.layerwise_blocks", _ATTENTION),
            "text_fusion.refiner_blocks": ("txtfusion.refiner_blocks", _ATTENTION),
        },
        top={
            "img_in": "first",
            "final_layer.linear": "last.linear",
            "time_embed.linear_1": "tmlp.0",
            "time_embed.linear_2": "tmlp.2",
            "time_mod_proj": "tproj.1",
            "txt_in.linear_1": "txtmlp.1",
            "txt_in.linear_2": "txtmlp.3",
            "text_fusion.projector": "txtfusion.projector",
        },
    ),
)

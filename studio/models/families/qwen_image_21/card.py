"""Qwen-Image-2.1: a block-causal stream over rows of Qwen3-VL and the picture, with an autoencoder of 16 pixels a latent."""

from studio.catalog.family import FamilyCard, Layers, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

_PARTS = {
    "transformer": Part(
        "QwenImage21Transformer2DModel",
        {"num_layers": 32, "num_attention_heads": 32, "context_in_dim": 4096, "in_channels": 64, "out_channels": 64},
    ),
    "vae": Part("AutoencoderKLQwenImage21"),
    "scheduler": parts.flow(
        use_dynamic_shifting=True, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02
    ),
    "text_encoder": Part("Qwen3VLForConditionalGeneration", parts.QWEN3_VL_8B, "transformers"),
}  # fmt: skip

FAMILY = FamilyCard(
    name="qwen-image-2.1",
    title="Qwen-Image-2.1",
    model="studio.models.families.qwen_image_21.model:QwenImage21",
    tiny="studio.models.families.qwen_image_21.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(
        Variant(
            name="qwen-image-2.1",
            hub="Qwen/Qwen-Image-2.1",
            title="Qwen-Image-2.1",
            steps=40,  # steps and guidance: its README (github.com/QwenLM/Qwen-Image-2.1)
            guidance=1.0,
            license="qwen-research",  # research and evaluation alone (LICENSE of its repository)
            architecture=_PARTS,
        ),
    ),
    recognize=Recognize(
        pipelines=("QwenImage21Pipeline",),
        keys=(
            "transformer_blocks.0.img_mlp.gate_layer.weight",
            "transformer_blocks.0.img_mlp.gate_up.weight",  # ComfyUI's file: two layers in one
        ),
        lora=("img_mlp.gate_layer",),
    ),
    words=Words(length=1024, mask=True, weights=False),
    layers=Layers(
        auto=("to_q", "to_k", "to_v", "to_out.0", "img_mlp.proj", "img_mlp.out", "img_mlp.gate_layer"),
        more=("img_in", "proj_out"),
        entry="img_in",
        stacks=("transformer_blocks",),
        text="first",
    ),
    # No trainer has it yet: what pictures of 1024 px are drawn with (64 x 64 tokens on the scheduler's line).
    schedule=Schedule(training_shift=2.0),
    # Neither ComfyUI nor musubi-tuner is known to read LoRAs of it.
    names=Names(modelspec="qwen-image-2.1", base_version="qwen_image_21", kohya=False, comfy=False),
)

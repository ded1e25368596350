"""SD3 and SD3.5: a transformer with joint attention over the picture and, after it, the text."""

from dataclasses import replace

from studio.catalog.family import FamilyCard, Layers, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

_MEDIUM = {
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
_PARTS = {
    "transformer": Part("SD3Transformer2DModel", _MEDIUM),
    "vae": parts.autoencoder16(1.5305, 0.0609),
    "scheduler": parts.flow(shift=3.0),
    "text_encoder": parts.CLIP_L_PROJECTED,
    "text_encoder_2": parts.CLIP_G_PROJECTED,
    "text_encoder_3": parts.T5_XXL,
}
_SD3 = Variant(
    name="sd3",
    hub="stabilityai/stable-diffusion-3-medium-diffusers",
    also=("stabilityai/stable-diffusion-3-medium",),
    title="Stable Diffusion 3 medium",
    steps=28,
    guidance=7.0,
    weights=2_028_328_000,
    license="stabilityai-nc-research-community",
    gated=True,
    architecture=_PARTS,
    tells={"transformer.qk_norm": None},
)
_MEDIUM_35 = {"qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)), "pos_embed_max_size": 384}
_LARGE_35 = {
    "qk_norm": "rms_norm",
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
}

FAMILY = FamilyCard(
    name="sd3",
    title="Stable Diffusion 3 and 3.5",
    model="studio.models.families.sd3.model:StableDiffusion3",
    tiny="studio.models.families.sd3.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(
        _SD3,
        replace(
            _SD3,
            name="sd35",
            modelspec="stable-diffusion-3-5-medium",
            hub="stabilityai/stable-diffusion-3.5-medium",
            also=("sd35-medium",),
            title="Stable Diffusion 3.5 medium",
            steps=40,
            guidance=4.5,
            weights=2_243_171_520,
            license="stabilityai-community",
            architecture=_PARTS | {"transformer": Part("SD3Transformer2DModel", _MEDIUM | _MEDIUM_35)},
            tells={"transformer.qk_norm": "rms_norm", "transformer.num_layers": 24},
            keys=("joint_blocks.0.x_block.attn2.qkv.weight", "transformer_blocks.0.attn2.to_q.weight"),
        ),
        replace(
            _SD3,
            name="sd35-large",
            modelspec="stable-diffusion-3-5-large",
            hub="stabilityai/stable-diffusion-3.5-large",
            also=(),
            title="Stable Diffusion 3.5 large",
            guidance=3.5,
            weights=8_056_627_520,
            license="stabilityai-community",
            architecture=_PARTS | {"transformer": Part("SD3Transformer2DModel", _MEDIUM | _LARGE_35)},
            tells={"transformer.qk_norm": "rms_norm", "transformer.num_layers": 38},
            keys=("joint_blocks.37.x_block.mlp.fc1.weight", "transformer_blocks.37.ff.net.2.weight"),
        ),
    ),
    recognize=Recognize(
        pipelines=("StableDiffusion3Pipeline",),
        keys=("joint_blocks.0.context_block.adaLN_modulation.1.weight", "pos_embed.pos_embed"),
        inputs={"x_embedder.proj.weight": 16, "pos_embed.proj.weight": 16},
        text={
            "text_encoder": parts.CLIP_L_IN_FILE,
            "text_encoder_2": parts.CLIP_G_IN_FILE,
            "text_encoder_3": parts.T5_IN_FILE,
        },
        optional=("text_encoder_3",),
        lora=("joint_blocks", "transformer.transformer_blocks.0.attn.add_q_proj"),
    ),
    words=Words(
        trains=("text_encoder", "text_encoder_2"),
        pads={"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
        length=256,
        reads=(*parts.CLIP_READS, "t5_tokens"),
    ),
    layers=Layers(
        auto=parts.JOINT,
        more=parts.FEED_FORWARD,
        entry="pos_embed",
        stacks=("transformer_blocks",),
        text="last",
        image_only=(".attn2.",),
    ),
    schedule=Schedule(sigmas="library"),
    names=Names(
        modelspec="stable-diffusion-3",
        base_version="sd3m",
        network="networks.lora_sd3",
        text={"text_encoder": parts.KOHYA_CLIP_L, "text_encoder_2": parts.KOHYA_CLIP_G},
        scheme="blocks",
        blocks={
            "transformer_blocks": (
                "joint_blocks",
                {
                    "x_block.attn.qkv": parts.QKV,
                    "context_block.attn.qkv": parts.ADDED_QKV,
                    "x_block.attn.proj": ("attn.to_out.0",),
                    "context_block.attn.proj": ("attn.to_add_out",),
                    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
                    "x_block.attn2.proj": ("attn2.to_out.0",),
                    "x_block.mlp.fc1": ("ff.net.0.proj",),
                    "x_block.mlp.fc2": ("ff.net.2",),
                    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
                    "context_block.mlp.fc2": ("ff_context.net.2",),
                    "x_block.adaLN_modulation.1": ("norm1.linear",),
                    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
                },
            )
        },
        top={
            "pos_embed.proj": "x_embedder.proj",
            "context_embedder": "context_embedder",
            "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
            "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
            "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
            "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
            "norm_out.linear": "final_layer.adaLN_modulation.1",
            "proj_out": "final_layer.linear",
        },
    ),
)

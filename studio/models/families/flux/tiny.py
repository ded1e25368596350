"""A small FLUX.1 dev with random weights."""

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from studio.models import tiny
from studio.models.tokenizers import tiny_clip_tokenizer, tiny_t5_tokenizer


def build() -> FluxPipeline:
    """The pipeline."""
    return FluxPipeline(**components())


def components(**channels: int) -> dict[str, Any]:
    """Its parts, with other channels of the transformer where they are given."""
    tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=tiny.WIDTH,
        pooled_projection_dim=tiny.WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
        **{"in_channels": 64} | channels,
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": tiny.vae(16, scaling=0.3611, shift=0.1159),
        "text_encoder": CLIPTextModel(tiny.clip_config(tokenizer, "quick_gelu")).eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": tiny.t5(len(t5_tokenizer), tiny.WIDTH),
        "tokenizer_2": t5_tokenizer,
        "transformer": transformer.eval(),
    }

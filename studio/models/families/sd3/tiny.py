"""A small SD3.5 medium with random weights."""

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from studio.models import tiny
from studio.models.tokenizers import tiny_clip_tokenizer, tiny_t5_tokenizer


def build() -> StableDiffusion3Pipeline:
    """The pipeline."""
    tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * tiny.WIDTH,
        caption_projection_dim=tiny.WIDTH,
        pooled_projection_dim=2 * tiny.WIDTH,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny.vae(16, scaling=1.5305, shift=0.0609),
        text_encoder=CLIPTextModelWithProjection(tiny.clip_config(tokenizer, "quick_gelu")).eval(),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(tiny.clip_config(tokenizer, "gelu")).eval(),
        tokenizer_2=tiny_clip_tokenizer(),
        text_encoder_3=tiny.t5(len(t5_tokenizer), 2 * tiny.WIDTH),
        tokenizer_3=t5_tokenizer,
    )

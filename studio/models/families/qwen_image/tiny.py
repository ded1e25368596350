"""A small Qwen-Image with random weights."""

from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

from studio.models import tiny, tiny_qwen
from studio.models.families.qwen_image.model import AFTER, BEFORE


def transformer() -> QwenImageTransformer2DModel:
    """Its denoiser."""
    return QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=tiny.WIDTH,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def build() -> QwenImagePipeline:
    """The pipeline."""
    tokenizer = tiny_qwen.tokenizer(BEFORE, AFTER)
    return QwenImagePipeline(
        scheduler=tiny_qwen.scheduler(),
        vae=tiny_qwen.vae(),
        text_encoder=tiny_qwen.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer(),
    )

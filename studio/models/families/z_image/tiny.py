"""A small Z-Image with random weights."""

from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Model

from studio.models import tiny
from studio.models.tokenizers import tiny_qwen_tokenizer


def build() -> ZImagePipeline:
    """The pipeline."""
    tokenizer = tiny_qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        dim=tiny.WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=tiny.WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 32, 32],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny.vae(16, scaling=0.3611, shift=0.1159),
        text_encoder=Qwen3Model(tiny.qwen3(len(tokenizer), layers=3)).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )

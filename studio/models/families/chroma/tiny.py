"""A small Chroma with random weights."""

from diffusers import ChromaPipeline, ChromaTransformer2DModel

from studio.models import tiny
from studio.models.families.flux.tiny import components
from studio.models.tokenizers import tiny_t5_tokenizer


def build() -> ChromaPipeline:
    """The pipeline."""
    flux, tokenizer = components(), tiny_t5_tokenizer(words=True)
    transformer = ChromaTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=tiny.WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=tiny.WIDTH,
        approximator_layers=1,
    )
    return ChromaPipeline(
        scheduler=flux["scheduler"],
        vae=flux["vae"],
        text_encoder=tiny.t5(len(tokenizer), tiny.WIDTH),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )

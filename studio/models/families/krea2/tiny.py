"""A small Krea 2 Raw with random weights."""

from diffusers import Krea2Pipeline, Krea2Transformer2DModel
from transformers import Qwen3VLModel

from studio.models import tiny, tiny_qwen
from studio.models.families.qwen_image.model import AFTER, BEFORE


def build() -> Krea2Pipeline:
    """The pipeline."""
    tokenizer = tiny_qwen.tokenizer(BEFORE, AFTER)
    transformer = Krea2Transformer2DModel(
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=tiny.WIDTH,
        num_text_layers=tiny_qwen.LAYERS,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=tiny.WIDTH,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return Krea2Pipeline(
        scheduler=tiny_qwen.scheduler(max_image_seq_len=6400, max_shift=1.15, shift_terminal=None),
        vae=tiny_qwen.vae(),
        text_encoder=Qwen3VLModel(tiny_qwen.qwen3_vl(tokenizer)).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        text_encoder_select_layers=tuple(range(1, tiny_qwen.LAYERS + 1)),
    )

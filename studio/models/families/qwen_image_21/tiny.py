"""A small Qwen-Image-2.1 with random weights."""

from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline, QwenImage21Transformer2DModel
from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from studio.models import tiny, tiny_qwen
from studio.models.families.qwen_image.model import AFTER
from studio.models.families.qwen_image_21.model import SYSTEM, USER

_CHAT = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- for part in message.content %}{{- part.text }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"""
"""What Qwen3-VL's template makes of messages of words alone."""


def build() -> QwenImage21Pipeline:
    """The pipeline."""
    tokenizer = tiny_qwen.tokenizer(SYSTEM, USER, AFTER)
    transformer = QwenImage21Transformer2DModel(
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=tiny.WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=_CHAT,
    )
    return QwenImage21Pipeline(
        scheduler=tiny_qwen.scheduler(),
        vae=AutoencoderKLQwenImage21(base_dim=4, decoder_base_dim=4, num_res_blocks=1).eval(),
        text_encoder=Qwen3VLForConditionalGeneration(tiny_qwen.qwen3_vl(tokenizer)).eval(),
        processor=processor,
        transformer=transformer.eval(),
    )

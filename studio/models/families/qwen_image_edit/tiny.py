"""A small Qwen-Image-Edit with random weights."""

from diffusers import QwenImageEditPlusPipeline

from studio.models import tiny_qwen
from studio.models.families.qwen_image.model import AFTER
from studio.models.families.qwen_image.tiny import transformer
from studio.models.families.qwen_image_edit.model import BEFORE


def build() -> QwenImageEditPlusPipeline:
    """The pipeline."""
    tokenizer = tiny_qwen.tokenizer(BEFORE, AFTER)
    return QwenImageEditPlusPipeline(
        scheduler=tiny_qwen.scheduler(),
        vae=tiny_qwen.vae(),
        text_encoder=tiny_qwen.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        processor=tiny_qwen.processor(tokenizer),
        transformer=transformer(),
    )

"""A small FLUX.2 klein-base with random weights."""

from diffusers import Flux2KleinPipeline
from transformers import Qwen3ForCausalLM

from studio.models import tiny
from studio.models.tokenizers import tiny_qwen_tokenizer


def build() -> Flux2KleinPipeline:
    """The pipeline."""
    tokenizer = tiny_qwen_tokenizer()
    return Flux2KleinPipeline(
        scheduler=tiny.flux2_scheduler(),
        vae=tiny.flux2_vae(),
        text_encoder=Qwen3ForCausalLM(tiny.qwen3(len(tokenizer), layers=4)).eval(),
        tokenizer=tokenizer,
        transformer=tiny.flux2(guidance=False),
    )

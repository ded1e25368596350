"""A small FLUX.2 dev with random weights."""

from diffusers import Flux2Pipeline
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
)

from studio.models import tiny
from studio.models.tokenizers import tiny_mistral_tokenizer


def build() -> Flux2Pipeline:
    """The pipeline."""
    tokenizer = tiny_mistral_tokenizer()
    shape = {
        "hidden_size": tiny.WIDTH,
        "intermediate_size": 2 * tiny.WIDTH,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    text = {
        "model_type": "mistral",
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
    }
    eyes = {"model_type": "pixtral", "num_hidden_layers": 1, "patch_size": 14, "image_size": 28}
    config = Mistral3Config(
        text_config=shape | text,
        vision_config=shape | eyes,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return Flux2Pipeline(
        scheduler=tiny.flux2_scheduler(),
        vae=tiny.flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=PixtralProcessor(
            PixtralImageProcessor(patch_size=14),
            tokenizer,
            patch_size=14,
            chat_template=tokenizer.chat_template,
        ),
        transformer=tiny.flux2(guidance=True),
    )

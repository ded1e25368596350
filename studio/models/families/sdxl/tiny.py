"""A small SDXL with random weights."""

from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from studio.models import tiny
from studio.models.tokenizers import tiny_clip_tokenizer


def build() -> StableDiffusionXLPipeline:
    """The pipeline."""
    tokenizer = tiny_clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * tiny.WIDTH,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + tiny.WIDTH,
        norm_num_groups=8,
    )
    return StableDiffusionXLPipeline(
        vae=tiny.vae(4, scaling=0.13025),
        text_encoder=CLIPTextModel(tiny.clip_config(tokenizer, "quick_gelu")).eval(),
        text_encoder_2=CLIPTextModelWithProjection(tiny.clip_config(tokenizer, "gelu")).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tiny_clip_tokenizer(),
        unet=unet.eval(),
        scheduler=tiny.ddim("epsilon"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )

"""Parts of the tiny random models of the families (`families/<name>/tiny.py`): seconds to build, for tests and trials.

They draw 64 px pictures of nothing: latents of 8 x 8, one or two layers a block, widths of 32 to 64.
"""

from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, Qwen3Config, T5Config, T5EncoderModel

from studio.models.tokenizers import tiny_clip_tokenizer

WIDTH = 32
SIZE = 64
"""Side of their pictures, in pixels."""
T5_TOKENS = 32
"""Tokens that T5 reads in tiny models (the large ones read 256 or 512)."""


def vae(channels: int, *, scaling: float, shift: float | None = None) -> AutoencoderKL:
    """An autoencoder of four levels."""
    blocks = 4
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=64,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )


def clip_config(tokenizer: CLIPTokenizer, activation: str) -> CLIPTextConfig:
    """Settings of a CLIP text encoder."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=WIDTH,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5(vocabulary: int, width: int) -> T5EncoderModel:
    """A T5 encoder."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def qwen3(vocabulary: int, layers: int) -> Qwen3Config:
    """Settings of a Qwen3 language model."""
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )


def flux2(*, guidance: bool) -> Flux2Transformer2DModel:
    """The transformer of FLUX.2, whose text is three layers wide."""
    return Flux2Transformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    ).eval()


def flux2_vae() -> AutoencoderKLFlux2:
    """The autoencoder of FLUX.2, with statistics of its own."""
    blocks = 4
    model = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    statistics: Any = model.bn
    statistics.running_mean.normal_(std=0.1)
    statistics.running_var.uniform_(0.5, 2.0)
    return model.eval()


def flux2_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of FLUX.2."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def ddim(prediction: str) -> DDIMScheduler:
    """Stable Diffusion's chain."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def stable_diffusion(prediction: str, activation: str, *, linear: bool) -> StableDiffusionPipeline:
    """A pipeline of SD 1.x or, with linear projections, 2.x."""
    tokenizer = tiny_clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(4, 8) if linear else 4,
        use_linear_projection=linear,
        norm_num_groups=8,
    )
    return StableDiffusionPipeline(
        vae=vae(4, scaling=0.18215),
        text_encoder=CLIPTextModel(clip_config(tokenizer, activation)).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=ddim(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

"""Tiny random models of every family, from configuration: seconds to build, for tests and trials.

They draw 64 px pictures of nothing: latents of 8 x 8, one or two layers a block, widths of 32 to 64.
"""

from collections.abc import Callable

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from studio.models.tokenizers import tiny_clip_tokenizer, tiny_t5_tokenizer

WIDTH = 32
T5_TOKENS = 32
"""Tokens that T5 reads in tiny models (the large ones read 256 or 512)."""


def _vae(channels: int, *, scaling: float, shift: float | None = None) -> AutoencoderKL:
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


def _clip_config(tokenizer: CLIPTokenizer, activation: str) -> CLIPTextConfig:
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


def _t5(vocabulary: int, width: int) -> T5EncoderModel:
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


def _ddim(prediction: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def _sd(prediction: str, activation: str, *, linear: bool) -> StableDiffusionPipeline:
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
        vae=_vae(4, scaling=0.18215),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, activation)).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=_ddim(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> StableDiffusionXLPipeline:
    tokenizer = tiny_clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        norm_num_groups=8,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(4, scaling=0.13025),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, "quick_gelu")).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer, "gelu")).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tiny_clip_tokenizer(),
        unet=unet.eval(),
        scheduler=_ddim("epsilon"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _sd3() -> StableDiffusion3Pipeline:
    tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(16, scaling=1.5305, shift=0.0609),
        text_encoder=CLIPTextModelWithProjection(_clip_config(tokenizer, "quick_gelu")).eval(),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer, "gelu")).eval(),
        tokenizer_2=tiny_clip_tokenizer(),
        text_encoder_3=_t5(len(t5_tokenizer), 2 * WIDTH),
        tokenizer_3=t5_tokenizer,
    )


def _flux() -> FluxPipeline:
    tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(16, scaling=0.3611, shift=0.1159),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, "quick_gelu")).eval(),
        tokenizer=tokenizer,
        text_encoder_2=_t5(len(t5_tokenizer), WIDTH),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )


TINY: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": lambda: _sd("epsilon", "quick_gelu", linear=False),
    "sd2": lambda: _sd("v_prediction", "gelu", linear=True),
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
}
"""Pipelines with fresh weights, by family."""

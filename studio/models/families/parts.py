"""Components that several families share, with their published settings. No torch.

Values are those of the models' configuration files, where they differ from the defaults of the class. CLIP's ids are what the
files say (`eos_token_id: 2`); the tokenizers say 49406 and 49407, and those are what counts (see `studio.models.text`).
"""

from typing import Any

from studio.catalog.family import Layers, Part

_IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
CLIP_L: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768,
                          **_IDS}  # fmt: skip
"""Text encoder of openai/clip-vit-large-patch14."""
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
           "hidden_act": "gelu", **_IDS}  # fmt: skip
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
           "hidden_act": "gelu", "projection_dim": 1280, **_IDS}  # fmt: skip
CLIP_L_TEXT = Part("CLIPTextModel", CLIP_L, "transformers")
CLIP_L_PROJECTED = Part("CLIPTextModelWithProjection", CLIP_L, "transformers")
CLIP_H_TEXT = Part("CLIPTextModel", _CLIP_H, "transformers")
"""LAION's ViT-H without its last layer, as SD 2 reads it."""
CLIP_G_PROJECTED = Part("CLIPTextModelWithProjection", _CLIP_G, "transformers")
"""LAION's ViT-bigG."""
T5_XXL = Part(
    "T5EncoderModel",
    {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 64,
     "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "transformers",
)  # fmt: skip
"""Encoder of google/t5-v1_1-xxl."""
QWEN3_4B: dict[str, Any] = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_key_value_heads": 8, "max_window_layers": 36,
    "max_position_embeddings": 40960, "rope_theta": 1000000, "tie_word_embeddings": True,
    "bos_token_id": 151643, "eos_token_id": 151645,
}  # fmt: skip
"""Qwen/Qwen3-4B."""


def autoencoder(**settings: Any) -> Part:
    """Stable Diffusion's autoencoder: four levels, 8 pixels a latent."""
    levels: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    return Part("AutoencoderKL", levels | settings)


def autoencoder16(scale: float, shift: float) -> Part:
    """The same with 16 channels (SD3, FLUX.1, Z-Image)."""
    own = {"latent_channels": 16, "sample_size": 1024, "scaling_factor": scale, "shift_factor": shift}
    return autoencoder(**own, use_quant_conv=False, use_post_quant_conv=False)


def chain(cls: str, **settings: Any) -> Part:
    """The scheduler of a model trained on Stable Diffusion's chain of 1000 steps."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return Part(cls, betas | settings)


def flow(**settings: Any) -> Part:
    """The scheduler of a model trained by flow matching."""
    return Part("FlowMatchEulerDiscreteScheduler", settings)


_UNET = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
JOINT = (*_UNET, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Attention of a joint transformer in diffusers' names."""
UNET_LAYERS = Layers(
    auto=(*_UNET, "add_k_proj", "add_v_proj"),
    more=(*FEED_FORWARD[:2], "proj_in", "proj_out"),
    entry="conv_in",
    stacks=("down_blocks", "mid_block", "up_blocks"),
)
"""Layers of Stable Diffusion's U-Nets; diffusers' scripts train attention."""
KOHYA_CLIP = ("lora_te_", "text_encoders.clip_l.transformer.")
KOHYA_CLIP_L = ("lora_te1_", "text_encoders.clip_l.transformer.")
KOHYA_CLIP_G = ("lora_te2_", "text_encoders.clip_g.transformer.")
"""Starts of the keys of text encoders in LoRA files: kohya's and ComfyUI's."""
CLIP_READS = ("clip_skip", "long_prompts")
"""Settings of text that matter where the denoiser reads CLIP's rows, and not its pooled vector alone."""
QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
UNET_INPUTS = {"input_blocks.0.0.weight": 4, "conv_in.weight": 4}
"""Channels of the latent that Stable Diffusion's U-Nets take."""
CLIP_L_IN_FILE = ("text_encoders.clip_l.transformer.",)
CLIP_G_IN_FILE = ("text_encoders.clip_g.transformer.",)
T5_IN_FILE = ("text_encoders.t5xxl.transformer.",)
"""Starts of the keys of text encoders in files of whole transformers, as ComfyUI writes them."""


def unet_shapes(block: str, depth: int, width: int) -> dict[str, tuple[int | None, ...]]:
    """Shape of the first layer of a U-Net that reads text rows of a width: by its original and by diffusers' name."""
    layer = "transformer_blocks.0.attn2.to_k.weight"
    names = (f"input_blocks.{block}.1.{layer}", f"down_blocks.{depth}.attentions.0.{layer}")
    return dict.fromkeys(names, (None, width))


QWEN25_VL_7B = Part(
    "Qwen2_5_VLForConditionalGeneration",
    {
        "text_config": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "max_window_layers": 28,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [16, 24, 24]},
            "rope_theta": 1e6,
            "sliding_window": None,
        },
        "vision_config": {"hidden_size": 1280, "tokens_per_second": 2},
    },
    "transformers",
)
"""Qwen/Qwen2.5-VL-7B-Instruct, as Qwen-Image carries it."""
QWEN3_VL_4B: dict[str, Any] = {
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
        "bos_token_id": 151643, "eos_token_id": 151645, "tie_word_embeddings": True,
    },
    "vision_config": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2560,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "tie_word_embeddings": True,
}  # fmt: skip
"""Qwen/Qwen3-VL-4B-Instruct."""
QWEN3_VL_8B: dict[str, Any] = {
    "text_config": {
        **QWEN3_VL_4B["text_config"], "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False,
    },
    "vision_config": {"out_hidden_size": 4096},
}  # fmt: skip
"""Qwen/Qwen3-VL-8B-Instruct."""
AUTOENCODER_QWEN = Part("AutoencoderKLQwenImage")
"""Qwen-Image's autoencoder of films, for one picture: 16 channels, a latent 8 pixels."""

"""Settings of the published SD 1.5, SD 2.1 and SDXL, and CLIP's tokenizer, for checkpoints that lack them.

Numbers are those of the models' published config files; the vocabulary is the one that open_clip ships.
"""

import gzip
import json
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
           "hidden_act": "quick_gelu", "projection_dim": 768}  # fmt: skip
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
           "hidden_act": "gelu", "projection_dim": 512}  # fmt: skip
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
           "hidden_act": "gelu", "projection_dim": 1280}  # fmt: skip
_CLIP_ALL = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}

_UNET_1 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_UNET_2 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
_UNET_XL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "num_train_timesteps": 1000,
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "v1": {
        "pipeline": "StableDiffusionPipeline",
        "unet": _UNET_1,
        "vae": _VAE | {"sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": _CLIP_L,
        "prediction_type": "epsilon",
    },
    "v2": {
        "pipeline": "StableDiffusionPipeline",
        "unet": _UNET_2,
        "vae": _VAE | {"sample_size": 768, "scaling_factor": 0.18215},
        "text_encoder": _CLIP_H,
        "prediction_type": "v_prediction",
    },
    "xl_base": {
        "pipeline": "StableDiffusionXLPipeline",
        "unet": _UNET_XL,
        "vae": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
        "prediction_type": "epsilon",
    },
}
"""Settings of whole models, by the names diffusers gives to kinds of checkpoints."""


def write_layout(kind: str, folder: Path, *, v_prediction: bool = False, zero_snr: bool = False) -> Path:
    """A diffusers folder without weights: settings and tokenizers of one kind of model.

    Args:
        kind: One of `LAYOUTS`.
        folder: Where to write.
        v_prediction: The checkpoint says that it predicts v.
        zero_snr: The checkpoint says that it was trained with zero terminal SNR.
    """
    layout = LAYOUTS[kind]
    prediction = "v_prediction" if v_prediction else layout["prediction_type"]
    scheduler = _SCHEDULER | {"prediction_type": prediction}
    if zero_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    parts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "unet": ("diffusers", "UNet2DConditionModel", layout["unet"]),
        "vae": ("diffusers", "AutoencoderKL", layout["vae"]),
        "scheduler": ("diffusers", "DDIMScheduler", scheduler),
        "text_encoder": ("transformers", "CLIPTextModel", _CLIP_ALL | layout["text_encoder"]),
    }
    if "text_encoder_2" in layout:
        second = _CLIP_ALL | layout["text_encoder_2"]
        parts["text_encoder_2"] = ("transformers", "CLIPTextModelWithProjection", second)
    index: dict[str, Any] = {"_class_name": layout["pipeline"]}
    for name, (library, cls, settings) in parts.items():
        index[name] = [library, cls]
        _write(folder / name, settings, library, cls)
        if name.startswith("text_encoder"):
            suffix = name.removeprefix("text_encoder")
            index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
            padded = "<|endoftext|>" if settings["hidden_act"] == "quick_gelu" else "!"
            clip_tokenizer(pad_token=padded).save_pretrained(folder / f"tokenizer{suffix}")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write(folder: Path, settings: dict[str, Any], library: str, cls: str) -> None:
    folder.mkdir(parents=True)
    kind = (
        {"_class_name": cls}
        if library == "diffusers"
        else {"architectures": [cls], "model_type": "clip_text_model"}
    )
    name = "scheduler_config.json" if folder.name == "scheduler" else "config.json"
    (folder / name).write_text(json.dumps(kind | settings))


def clip_tokenizer(*, pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer, made from the vocabulary in open_clip (49408 pieces)."""
    packed = resources.files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    alphabet = list(bytes_to_unicode().values())
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)

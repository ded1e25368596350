"""Parts of the tiny models of families that read with a Qwen vision-language model and draw with its autoencoder."""

import itertools
import re
from typing import Any

from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from studio.models import tiny

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
            "<|video_pad|>")  # fmt: skip
_PIECE = re.compile(r"<\|\w+\|>|( ?[A-Za-z]+|'s| \(|\),)")
"""A special token, which is one already, or a piece of its own: a word, or what stands so in a template."""
LAYERS = 3
"""Layers of the text encoders."""


def tokenizer(*templates: str) -> Qwen2Tokenizer:
    """Qwen's tokenizer with every byte, and the words of templates as one token each, as the real one has them."""
    alphabet = list(bytes_to_unicode().values())
    found = {word.replace(" ", "Ġ") for text in templates for word in _PIECE.findall(text) if word}
    words = sorted(found, reverse=True)  # those behind a space first: what starts others would break them
    merges = dict.fromkeys(
        pair for word in words for pair in zip(itertools.accumulate(word), word[1:], strict=False)
    )
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    # The annotation asks for strings, the library behind it for pairs.
    made = Qwen2Tokenizer(vocab=vocabulary, merges=list(merges), model_max_length=4096)  # pyright: ignore[reportArgumentType]
    made.add_special_tokens({"additional_special_tokens": list(_SPECIAL[1:])})
    made.eos_token, made.padding_side = "<|im_end|>", "right"
    return made


def special_ids(made: Qwen2Tokenizer) -> dict[str, Any]:
    """Settings of a Qwen vision-language model that name tokens."""
    ids = {word: made.convert_tokens_to_ids(word) for word in _SPECIAL}
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def text_settings(made: Qwen2Tokenizer) -> dict[str, Any]:
    """Settings of the text side of a tiny Qwen."""
    return {
        "vocab_size": len(made),
        "hidden_size": tiny.WIDTH,
        "intermediate_size": 2 * tiny.WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": made.eos_token_id,
    }


def qwen25_vl(made: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL."""
    config = Qwen2_5_VLConfig(
        text_config=text_settings(made)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": tiny.WIDTH,
            "fullatt_block_indexes": [1],
        },
        **special_ids(made),
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen3_vl(made: Qwen2Tokenizer) -> Qwen3VLConfig:
    """Settings of a Qwen3-VL."""
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config=text_settings(made) | {"head_dim": 16, "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": tiny.WIDTH,
            "deepstack_visual_indexes": [1],
        },
        **special_ids(made),
    )


def vae() -> AutoencoderKLQwenImage:
    """Qwen-Image's autoencoder, thin: 16 channels with the published statistics."""
    return AutoencoderKLQwenImage(base_dim=4, num_res_blocks=1).eval()


def scheduler(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """Qwen-Image's scheduler."""
    settings: dict[str, Any] = {"max_image_seq_len": 8192, "max_shift": 0.9, "shift_terminal": 0.02}
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **(settings | changes))


def processor(made: Qwen2Tokenizer) -> Qwen2VLProcessor:
    """What puts pictures beside the text of a Qwen2.5-VL."""
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(), tokenizer=made, video_processor=Qwen2VLVideoProcessor()
    )

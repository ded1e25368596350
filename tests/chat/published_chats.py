"""Chat models of the published files, shrunk: their own settings, tokenizers, templates and picture processors, thin networks.

Where the published files have no vocabulary (Gemma 2's of PaliGemma 2, SmolLM2's of SmolVLM2) a made one stands in: one token
a byte, and the special tokens at their published ids.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from tests.models.published import PUBLISHED, whole

Settings = dict[str, Any]
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_ROPE = {"mrope_section": [2, 3, 3]}  # half of a head's 16


def _qwen2_vl(config: Settings) -> None:
    config.update(_TEXT)
    config["rope_scaling"].update(_ROPE)
    config["vision_config"].update(depth=2, embed_dim=32, num_heads=2, hidden_size=32)


def _qwen25_vl(config: Settings) -> None:
    config.update(_TEXT)
    config["rope_scaling"].update(_ROPE)
    config["vision_config"].update(
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=64,
        out_hidden_size=32,
        fullatt_block_indexes=[1],
    )


def _qwen3_vl(config: Settings) -> None:
    config["text_config"].update(_TEXT, head_dim=16)
    config["text_config"]["rope_scaling"].update(_ROPE)
    config["vision_config"].update(
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=64,
        out_hidden_size=32,
        deepstack_visual_indexes=[0],
    )


def _towers(config: Settings) -> None:
    """Language models and towers that name their widths alike."""
    config["text_config"].update(_TEXT, head_dim=16)
    config["vision_config"].update(_TOWER)


def _paligemma(config: Settings) -> None:
    _towers(config)
    config.update(hidden_size=32, projection_dim=32, num_hidden_layers=2)
    config["text_config"].update(query_pre_attn_scalar=16)
    config["vision_config"].update(projection_dim=32)


NAMES: dict[str, tuple[str, Callable[[Settings], None]]] = {
    "Qwen2-VL": ("Qwen2-VL-2B-Instruct", _qwen2_vl),
    "Qwen2.5-VL": ("Qwen2.5-VL-3B-Instruct", _qwen25_vl),
    "Qwen3-VL": ("Qwen3-VL-2B-Instruct", _qwen3_vl),
    "SmolVLM2": ("SmolVLM2-500M-Video-Instruct", _towers),
    "Idefics3": ("Idefics3-8B-Llama3", _towers),
    "PaliGemma 2": ("paligemma2-3b-pt-224", _paligemma),
    "Gemma 3": ("gemma-3-4b-it", _towers),
    "InternVL 3": ("InternVL3-1B-hf", _towers),
    "LLaVA-1.5": ("llava-1.5-7b-hf", _towers),
    "LLaVA-OneVision": ("llava-onevision-qwen2-0.5b-ov-hf", _towers),
}
"""Title to the published folder, and what shrinks its settings."""
_GEMMA2 = {
    "<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<image>": 257152,
    **{f"<loc{n:04d}>": 256000 + n for n in range(1024)}, **{f"<seg{n:03d}>": 257024 + n for n in range(128)},
}  # fmt: skip
_SMOLLM2 = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def chat_model(title: str, folder: Path) -> Path:
    """The folder of a shrunk model, as a hub would have it."""
    chat_files(title, folder)
    _network(folder).save_pretrained(folder)
    return folder


def chat_files(title: str, folder: Path) -> Path:
    """A shrunk model's folder without its weights."""
    name, shrinks = NAMES[title]
    whole(f"vlm/{name}", folder)
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    shrinks(settings)
    file.write_text(json.dumps(settings))
    if title == "PaliGemma 2":
        _vocabulary(_GEMMA2, bos="<bos>", eos="<eos>", pad="<pad>", unk="<unk>").save_pretrained(folder)
    if title == "SmolVLM2":
        _smol(folder)
    return folder


def _network(folder: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.float32
        )
    generation = folder / "generation_config.json"
    if generation.is_file():
        made.generation_config = type(made.generation_config).from_pretrained(folder)
    return made


def _vocabulary(
    special: dict[str, int], *, bos: str, eos: str, pad: str, unk: str
) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    free = (n for n in range(10**6) if n not in set(special.values()))
    pieces = special | {letter: next(free) for letter in letters}
    model: Any = Tokenizer(BPE(vocab=pieces, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unk
    )


def _smol(folder: Path) -> None:
    """SmolLM2's special tokens with one token a byte, and the published tokenizer's own settings."""
    added = json.loads((folder / "added_tokens.json").read_text())
    kept = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "added_tokens.json").unlink()
    made = _vocabulary(
        _SMOLLM2 | added, bos="<|im_start|>", eos="<end_of_utterance>", pad="<|im_end|>", unk="<|endoftext|>"
    )
    made.save_pretrained(folder)
    settings = {k: v for k, v in kept.items() if k != "tokenizer_class"} | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def there(title: str) -> bool:
    """Whether the published files of a model lie beside the project."""
    return (PUBLISHED / "vlm" / NAMES[title][0]).is_dir()

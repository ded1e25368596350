"""Tokenizers made in code: CLIP's from the vocabulary that open_clip ships, and small ones for tiny random models."""

import gzip
import importlib.util
import string
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_PAIRS = [(a, b) for a in string.ascii_lowercase for b in string.ascii_lowercase]


def tiny_clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with every byte, every pair of letters that ends a word, and nothing else."""
    alphabet = list(bytes_to_unicode().values())
    pairs = [(a, f"{b}</w>") for a in string.ascii_lowercase for b in string.ascii_lowercase]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *(a + b for a, b in pairs)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # The annotation asks for strings, the library behind it for pairs.
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)  # pyright: ignore[reportArgumentType]


def tiny_t5_tokenizer(*, words: bool = False) -> T5Tokenizer:
    """T5's tokenizer with single characters as pieces, and where no CLIP has them words of two letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = string.ascii_letters + string.digits + string.punctuation
    letters = string.ascii_lowercase
    pairs = [(f"▁{a}{b}", -4.0) for a in letters for b in letters]
    return T5Tokenizer(
        vocab=[*special, *((character, -3.0) for character in characters), *(pairs if words else ())],
        extra_ids=0,
        additional_special_tokens=[],
        model_max_length=512,
    )


def clip_tokenizer(*, pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer, made from the vocabulary in open_clip (49408 pieces)."""
    lines = gzip.decompress(_packed_merges()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    alphabet = list(bytes_to_unicode().values())
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)


def _packed_merges() -> bytes:
    """The file in open_clip, without importing it, which takes seconds."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("open_clip is not installed, and CLIP's vocabulary lies in it")
    return Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes()


_QWEN_CHAT = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
"""What Qwen3's template makes of plain messages."""


def tiny_qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen3's tokenizer with bytes and pairs of letters as pieces, and its chat template without tools."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    pieces = [*special, *bytes_to_unicode().values(), *(a + b for a, b in _PAIRS)]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=_PAIRS,  # pyright: ignore[reportArgumentType]  # as of CLIP's
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=128,
        chat_template=_QWEN_CHAT,
    )
    tokenizer.add_tokens([AddedToken(piece, special=True) for piece in special])
    return tokenizer


_MISTRAL_CHAT = """{{- bos_token }}{%- for message in messages %}
{%- set mark = '[SYSTEM_PROMPT]' if message.role == 'system' else '[INST]' %}{{- mark }}
{%- for part in message.content %}{{- part.text }}{%- endfor %}{{- '[/' + mark[1:] }}{%- endfor %}"""
"""What Mistral Small 3.1's template makes of a system message and a user's, in parts of text."""


def tiny_mistral_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with Mistral's marks, bytes and pairs of letters as pieces; it pads on the left."""
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        *marks,
        *bytes_to_unicode().values(),
        *(a + b for a, b in _PAIRS),
    ]
    inner = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, _PAIRS))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=512,
        chat_template=_MISTRAL_CHAT,
    )
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in marks])
    return tokenizer

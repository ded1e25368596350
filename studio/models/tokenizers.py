"""Small tokenizers made in code, for tiny random models: no vocabulary file is needed."""

import string

from tokenizers import AddedToken
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


def tiny_clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with every byte, every pair of letters that ends a word, and nothing else."""
    alphabet = list(bytes_to_unicode().values())
    pairs = [(a, f"{b}</w>") for a in string.ascii_lowercase for b in string.ascii_lowercase]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *(a + b for a, b in pairs)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # The annotation asks for strings, the library behind it for pairs.
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)  # pyright: ignore[reportArgumentType]


def tiny_t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer with single characters as pieces."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = string.ascii_letters + string.digits + string.punctuation
    return T5Tokenizer(
        vocab=[*special, *((character, -3.0) for character in characters)],
        extra_ids=0,
        additional_special_tokens=[],
        model_max_length=512,
    )


_QWEN_CHAT = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
"""What Qwen3's template makes of plain messages."""


def tiny_qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen3's tokenizer with single bytes as pieces, and its chat template without tools."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    pieces = [*bytes_to_unicode().values(), *special]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=128,
        chat_template=_QWEN_CHAT,
    )
    tokenizer.add_tokens([AddedToken(piece, special=True) for piece in special])
    return tokenizer

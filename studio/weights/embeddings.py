"""Files of textual inversion, ours and others': words put on a model's text encoders."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.models.base import Family
from studio.models.words import known, numbered, table, teach

EMBEDDING_KEYS = ("emb_params", "clip_l", "clip_g")
"""Names of vectors in files that do not name the word."""


def is_embedding(values: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of a file are vectors of a word."""
    named = any(key in values for key in EMBEDDING_KEYS)
    return named or (len(values) == 1 and next(iter(values.values())).ndim <= 2)


def load_embedding(path: Path, values: Mapping[str, Tensor], family: Family, name: str) -> list[str]:
    """Add a new word to every CLIP text encoder that the file has vectors for; gives what is written in a prompt.

    Args:
        path: The file, for messages.
        values: Its tensors, (n d) or (d): under the word itself, or under the names that others write.
        family: The model.
        name: The word, without its angle brackets, where the file does not tell.

    Raises:
        StudioError: It was made for another model, or the model has the word already.
    """
    key = next(iter(values))
    word = key if key not in EMBEDDING_KEYS else f"<{name}>"  # diffusers writes the word as the key
    words = numbered(word, len(torch.atleast_2d(values[key])))
    for key, value in values.items():
        suffix = "_2" if key == "clip_g" else ""
        encoder, tokenizer = (
            family.clip_encoders.get(f"text_encoder{suffix}"),
            family.tokenizers.get(f"tokenizer{suffix}"),
        )
        if encoder is None or tokenizer is None:
            raise StudioError(
                f"{path} has vectors for {key}, which {family.name} has not; it was made for another model."
            )
        width = table(encoder).embedding_dim
        if value.shape[-1] != width:
            raise StudioError(
                f"{path} holds vectors of width {value.shape[-1]}, but the text encoder of {family.name} has {width}; "
                "it was made for another model family."
            )
        if taken := known(tokenizer, words):
            raise StudioError(
                f"{path} brings the word {taken[0]!r}, which the model has already, such as from an artifact before it; "
                "give one of the two, or train it again with another --token.",
                field="artifact",
            )
        teach(encoder, tokenizer, words, torch.atleast_2d(value))
    return words

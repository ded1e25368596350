"""Words added to a CLIP text encoder and its tokenizer, as textual inversion learns and reads them.

Axes: `n` words, `d` width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def numbered(word: str, count: int) -> list[str]:
    """What a word of several vectors is written as in a prompt, one part a vector: word, word_1, word_2."""
    return [word, *(f"{word}_{i}" for i in range(1, count))]


def known(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[str]:
    """Those of some words that a tokenizer has already."""
    vocabulary = tokenizer.get_vocab()
    return [word for word in words if word in vocabulary]


def add_words(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
) -> Int[Tensor, " n"]:
    """Numbers of new words, for which the encoder's table has rows afterwards.

    The table only grows: some published ones have more rows than their tokenizer has words.
    """
    tokenizer.add_tokens(list(words))
    if len(tokenizer) > table(encoder).num_embeddings:
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _end_as(encoder, tokenizer)
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(words)))


@torch.no_grad()
def teach(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    vectors: Float[Tensor, "n d"],
) -> None:
    """Add words with their vectors."""
    ids = add_words(encoder, tokenizer, words)
    weight = table(encoder).weight
    weight[ids.to(weight.device)] = vectors.to(weight)


def table(encoder: PreTrainedModel) -> nn.Embedding:
    """The embeddings of an encoder's tokens."""
    found = encoder.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise TypeError(f"the tokens of {type(encoder).__name__} are embedded by a {type(found).__name__}")
    return found


def _end_as(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have transformers, in a pipeline, find the end token as `studio.models.text` does.

    Published settings say `eos_token_id: 2`, with which it takes the largest number of a row: an added word.
    """
    encoder.config.eos_token_id = tokenizer.eos_token_id
    for module in encoder.modules():
        if "eos_token_id" in vars(module):
            vars(module)["eos_token_id"] = tokenizer.eos_token_id

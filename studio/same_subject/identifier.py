"""Rare words: DreamBooth section 3.2, as a rule that works for every tokenizer.

The paper draws token ids that are rare in the vocabulary and decodes them. BPE ids are in order of merging, so
late ids of a CLIP vocabulary are rare; T5's rare band is 5,000 to 10,000 (paper).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from studio.errors import StudioError
from studio.models.language import tokenizer_of

MAX_TOKENS_ELSEWHERE = 3
STOP_WORDS = frozenset(
    [
        "am",
        "an",
        "as",
        "at",
        "be",
        "by",
        "do",
        "go",
        "he",
        "if",
        "in",
        "is",
        "it",
        "me",
        "my",
        "no",
        "of",
        "on",
        "or",
        "so",
        "to",
        "up",
        "us",
        "we",
        "cm",
        "mm",
        "km",
        "kg",
        "lb",
        "oz",
        "ft",
        "gun",
        "sex",
        "nra",
        "nfl",
        "bmw",
        "ibm",
        "nba",
        "usa",
        "uk",
        "eu",
        "cat",
        "dog",
        "man",
        "boy",
        "car",
        "sun",
        "sea",
        "red",
        "ice",
        "egg",
        "bee",
        "cow",
        "pig",
        "fox",
        "owl",
    ]
)


def pick_identifier(tokenizers: Mapping[str, Any], *, seed: int = 0) -> str:
    """A rare string of two or three letters that is one token of the first CLIP tokenizer, or of the first at all.

    Every other tokenizer splits it into at most three tokens.

    Raises:
        StudioError: the vocabulary has no such string; name one with `token`.
    """
    given = [tokenizer_of(one) for one in tokenizers.values()]
    first = next((one for one in given if isinstance(one, CLIPTokenizer)), given[0])
    others = [one for one in given if one is not first]
    found = [w for w in _candidates(first) if all(len(_ids(t, w)) <= MAX_TOKENS_ELSEWHERE for t in others)]
    if not found:
        raise StudioError(
            "The tokenizer has no rare word of 2 or 3 letters; name one with --token.", field="token"
        )
    choice = torch.randint(len(found), (), generator=torch.Generator().manual_seed(seed))
    return found[int(choice)]


def _ids(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    return tokenizer.encode(word, add_special_tokens=False)


def _band(tokenizer: PreTrainedTokenizerBase) -> range:
    size = len(tokenizer)
    if isinstance(tokenizer, CLIPTokenizer):
        return range(40_000, 49_405) if size > 49_000 else range(size // 2, size)
    return range(5_000, 10_000) if size > 10_000 else range(size // 2, size)


def _candidates(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for index in _band(tokenizer):
        word = str(tokenizer.decode([index])).strip()
        letters = word.isascii() and word.isalpha() and word.islower() and 2 <= len(word) <= 3
        if letters and word not in STOP_WORDS and _ids(tokenizer, word) == [index]:
            yield word

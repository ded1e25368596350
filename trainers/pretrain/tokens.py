"""The tokenizer of the embedded models: byte-level BPE in the layout of CLIP's, learned from scene captions."""

from collections import Counter
from functools import cache
from itertools import pairwise

import torch
from tokenizers import Regex, pre_tokenizers
from transformers import CLIPTokenizer

from studio.data.sticker_concepts import STYLES
from studio.data.sticker_config import Stickers
from studio.data.stickers import index, plan_scenes, write_captions

VOCABULARY = 2048
LENGTH = 24
"""Tokens of a prompt: scene captions have 23 at most."""
START, END = "<|startoftext|>", "<|endoftext|>"
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_COMMON = [
    "a",
    "an",
    "the",
    "of",
    "on",
    "in",
    "at",
    "with",
    "and",
    "or",
    "to",
    "from",
    "by",
    "for",
    "is",
    "are",
    "this",
    "that",
    "photo",
    "picture",
    "painting",
    "drawing",
    "image",
    "style",
    "art",
    "portrait",
    "icon",
    "illustration",
    "sketch",
    "watercolor",
    "cute",
    "small",
    "big",
    "tiny",
    "large",
    "happy",
    "sad",
    "old",
    "new",
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
    "gray",
    "black",
    "white",
    "dark",
    "light",
    "bright",
    "colorful",
    "striped",
    "spotted",
    "wooden",
    "metal",
    "glass",
    "golden",
    "silver",
    "shiny",
    "background",
    "beach",
    "city",
    "forest",
    "desert",
    "garden",
    "kitchen",
    "room",
    "street",
    "table",
    "floor",
    "wall",
    "window",
    "water",
    "snow",
    "rain",
    "sky",
    "night",
    "day",
    "sun",
    "moon",
    "mountain",
    "river",
    "road",
    "grass",
    "sand",
    "stone",
    "brick",
    "cloud",
    "clouds",
    "star",
    "stars",
    "wearing",
    "holding",
    "sitting",
    "standing",
    "running",
    "flying",
    "hat",
    "glasses",
    "jacket",
    "next",
    "near",
    "under",
    "over",
    "above",
    "behind",
    "front",
    "left",
    "right",
    "top",
    "bottom",
    "corner",
    "corners",
    "middle",
    "person",
    "people",
    "man",
    "woman",
    "child",
    "baby",
    "animal",
    "bird",
    "food",
    "fruit",
    "plant",
    "vehicle",
    "toy",
    "object",
    "tool",
    "clothing",
    "instrument",
    "face",
    "thing",
]


def corpus() -> list[str]:
    """Captions of all concepts, the names on their own, and words that people write in prompts."""
    settings = Stickers(num_concepts=len(index()), styles=STYLES, textured=0.5, centered=0.5)
    plan = plan_scenes(settings, 20_000, torch.Generator().manual_seed(7), painted=False)
    places = ["", "small", "top left", "top right", "bottom left", "bottom right"]
    captions = write_captions(plan, settings, [places[row % len(places)] for row in range(20_000)])
    return captions + 20 * [row["name"] for row in index()] + 50 * _COMMON


def merges(texts: list[str], wanted: int) -> list[tuple[str, str]]:
    """The first `wanted` merges of byte-level BPE over lowercase words; ties go to the pair that sorts first.

    Own code, since the trainer of `tokenizers` breaks ties by chance and the same data must give the same bytes.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    counts: Counter[str] = Counter()
    for written, count in Counter(word for text in texts for word in text.lower().split()).items():
        for word, _ in splitter.pre_tokenize_str(written):
            counts[word] += count
    words = {word: [*word[:-1], f"{word[-1]}</w>"] for word in counts}
    pairs: Counter[tuple[str, str]] = Counter()
    for word, pieces in words.items():
        _count(pairs, pieces, counts[word])
    learned: list[tuple[str, str]] = []
    while len(learned) < wanted and (pairs := +pairs):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(best)
        for word, pieces in words.items():
            if best in pairwise(pieces):
                _count(pairs, pieces, -counts[word])
                words[word] = _join(pieces, best)
                _count(pairs, words[word], counts[word])
    return learned


def _count(pairs: Counter[tuple[str, str]], pieces: list[str], times: int) -> None:
    for pair in pairwise(pieces):
        pairs[pair] += times


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces of a word with every occurrence of a pair made one."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


@cache
def build_tokenizer() -> CLIPTokenizer:
    """Learns the tokenizer; the same scenes always give the same one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    learned = merges(corpus(), VOCABULARY - len(symbols) - 2)
    entries = dict.fromkeys([*symbols, *("".join(pair) for pair in learned)])
    filler = (f"<|unused{place}|>" for place in range(VOCABULARY))
    while len(entries) < VOCABULARY - 2:
        entries[next(filler)] = None
    vocabulary = {entry: place for place, entry in enumerate([*entries, START, END])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=learned, unk_token=END, bos_token=START, eos_token=END, pad_token=END,
        model_max_length=LENGTH,
    )  # fmt: skip

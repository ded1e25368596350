"""What a chat model reads of a file of conversations: how long they are in tokens, and their text with marks on what is learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from studio.chat.model import load_reader
from studio.chat.speech import Speech, Whole
from studio.data import images
from studio.data.conversations import Conversation

MEASURED, EXTREMES = 16, 4
"""Conversations that are measured: so many spread over the file, and so many with the longest texts and the largest pictures."""
SHOWN = 3
"""Conversations that a check shows."""
OPEN, CLOSE = "\u27e6", "\u27e7"
_GAP = 12
"""Tokens between two parts of one picture (Idefics3: row, column, line break)."""


@dataclass(frozen=True)
class Lengths:
    """How long conversations are, in tokens.

    Attributes:
        measured, found: How many were measured, of how many.
        least, mean, most: Tokens, those of pictures included.
        longest: Name of the longest.
        pictures: Share of the tokens that are pictures'.
    """

    measured: int
    found: int
    least: int
    mean: float
    most: int
    longest: str
    pictures: float

    def told(self) -> str:
        """One sentence."""
        some = "" if self.measured == self.found else f", of {self.measured} of {self.found:,} conversations"
        return (
            f"tokens of a conversation: {self.least:,} to {self.most:,} (mean {self.mean:,.0f}, {self.pictures:.0%} of them pictures; "
            f"the longest is {self.longest!r}{some})"
        )


def lengths(speech: Speech, image_token: int, found: Sequence[Conversation]) -> Lengths:
    """Measure some of the conversations, the likely longest among them."""
    chosen = _chosen(found)
    tokens = [speech.whole(one).inputs["input_ids"][0] for one in chosen]
    sizes = [len(each) for each in tokens]
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    shown = sum(int((each == image_token).sum()) for each in tokens)
    return Lengths(
        measured=len(chosen), found=len(found), least=min(sizes), mean=sum(sizes) / len(sizes), most=sizes[longest],
        longest=chosen[longest].name, pictures=shown / sum(sizes),
    )  # fmt: skip


def learned(
    found: Sequence[Conversation], name: str, max_pixels: int = 0, template: str = ""
) -> Iterator[str]:
    """What `studio data check FILE --model NAME` says: lengths, notes, and the first conversations with marks.

    Args:
        found: Conversations.
        name: Of the model; this and the others are as `studio.chat.model.load_vlm` takes them.
        max_pixels: Most pixels of a picture.
        template: A chat template for the model's own.

    Raises:
        StudioError: The model is not there, or cannot be told such a conversation.
    """
    reader = load_reader(name, max_pixels, template)
    image_token = int(reader.config.image_token_id)
    if found:
        yield lengths(reader.speech, image_token, found).told()
    yield f"the model was made for {reader.config.get_text_config().max_position_embeddings:,} tokens"
    yield from reader.speech.notes
    yield f"what is learned stands in {OPEN}{CLOSE}:"
    for one in found[:SHOWN]:
        yield f"--- {one.name}"
        yield marked(reader.processor.tokenizer, image_token, reader.speech.whole(one))


def _chosen(found: Sequence[Conversation]) -> list[Conversation]:
    """Conversations spread over a file, and those with most text and with most pixels."""
    every = max(1, len(found) // MEASURED)
    by_text = sorted(range(len(found)), key=lambda n: -sum(len(turn.text) for turn in found[n].turns))
    by_pixels = sorted(range(len(found)), key=lambda n: -_pixels(found[n]))
    places = {*range(0, len(found), every), *by_text[:EXTREMES], *by_pixels[:EXTREMES]}
    return [found[place] for place in sorted(places)]


def _pixels(conversation: Conversation) -> int:
    return sum(width * height for width, height in map(images.size, conversation.pictures))


def marked(tokenizer: Any, image_token: int, whole: Whole) -> str:
    """A conversation as the model reads it, what is learned in double brackets and a picture as its number of tokens."""
    tokens = whole.inputs["input_ids"][0]
    kept, named = _pictures(tokens, image_token)
    text, done = "", ""
    edges = [
        0,
        *(n for n in range(1, len(kept)) if whole.learned[kept[n]] != whole.learned[kept[n - 1]]),
        len(kept),
    ]
    for start, stop in pairwise(edges):
        so_far = tokenizer.decode(tokens[kept[:stop]])
        piece, done = so_far[len(done) :], so_far
        text += f"{OPEN}{piece}{CLOSE}" if whole.learned[kept[start]] else piece
    token = tokenizer.decode([image_token])
    for number in named:
        text = text.replace(token, f"[picture: {number:,} tokens]", 1)
    return text


def _pictures(tokens: Tensor, image_token: int) -> tuple[list[int], list[int]]:
    """Places of tokens with one for each picture, and how many tokens each picture has."""
    own = (tokens == image_token).nonzero()[:, 0].tolist()
    runs: list[list[int]] = []
    for place in own:
        if runs and place - runs[-1][1] <= _GAP:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    hidden = torch.zeros(len(tokens), dtype=torch.bool)
    for first, last in runs:
        hidden[first + 1 : last + 1] = True
    return (~hidden).nonzero()[:, 0].tolist(), [last - first + 1 for first, last in runs]

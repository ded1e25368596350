"""Prompts to token numbers in a chat model's fixed template, of which the denoiser does not see the first rows.

Axes: `b` prompts, `n` tokens of the longest, `d` width.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from studio.errors import StudioError
from studio.models.text import EOS, PAD, WORD
from studio.models.weighting import marked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Template:
    """What stands before and after a prompt.

    Attributes:
        before, after: Text around the prompt.
        dropped: Rows at the start, of what stands before, that the denoiser does not see.
        keeps_end: A long prompt is cut before what stands after it, which stays; else the whole is cut.
    """

    before: str
    after: str
    dropped: int
    keeps_end: bool = False


@dataclass(frozen=True)
class Tokens:
    """Prompts in a template, padded at the end: numbers, which are there, and what each is."""

    ids: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]
    kinds: Int[Tensor, "b n"]


def templated(tokenizer: Any, prompts: Sequence[str], template: Template, length: int) -> Tokens:
    """Token numbers of prompts; a prompt of more than `length` rows, with what stands after it, is cut with a warning."""
    end = tokenizer(template.after).input_ids
    rows = [tokenizer(template.before + prompt).input_ids for prompt in prompts]
    room = template.dropped + length - (len(end) if template.keeps_end else 0)
    if (longest := max(map(len, rows))) > room:
        log.warning(
            "A prompt of %d tokens is cut to %d.", longest - template.dropped, room - template.dropped
        )
    whole = template.dropped + length
    kinds = [([WORD] * len(row[:room]) + [EOS] * len(end))[:whole] for row in rows]
    ids = [(row[:room] + end)[:whole] for row in rows]
    return Tokens(_padded(ids, 0), _padded([[1] * len(row) for row in ids], 0).bool(), _padded(kinds, PAD))


def _padded(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "b n"]:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def refuse_weights(prompts: Sequence[str], *, asked: bool, title: str) -> None:
    """Refuse weights in prompts, which rows of a causal model cannot be moved by.

    Raises:
        StudioError: A prompt has weights, and they are asked to be read.
    """
    if asked and marked(prompts):
        raise StudioError(
            f"{title} reads prompts with a chat model, which has no weights of words; take the brackets out of the "
            r"prompt, or write \( and \) to keep them as text.",
            field="prompts",
        )


def last_rows(encoder: nn.Module, tokens: Tokens, **pictures: Tensor) -> Float[Tensor, "b n d"]:
    """Rows of the last layer of a chat model, which may look at pictures."""
    device = next(encoder.parameters()).device
    output = encoder(
        input_ids=tokens.ids.to(device),
        attention_mask=tokens.mask.long().to(device),
        output_hidden_states=True,
        logits_to_keep=1,
        **{key: value.to(device) for key, value in pictures.items()},
    )
    return output.hidden_states[-1]

"""Prompts to embeddings with CLIP and T5, as diffusers' pipelines do it.

Axes: `b` prompts, `k` parts of a long prompt, `l` tokens of a part, `d` width.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.weighting import marked, numbers, weigh
from studio.settings.sampling import MAX_T5_TOKENS, Text

log = logging.getLogger(__name__)

PAD, WORD, BOS, EOS = 0, 1, 2, 3
"""What a token is."""


@dataclass(frozen=True)
class Encoded:
    """What one text encoder says: rows, one vector a prompt (CLIP only), what each row is, and its token's number."""

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b p"] | None
    kinds: Int[Tensor, "b n"]
    ids: Int[Tensor, "b n"]


def tell_unread(text: Text, card: FamilyCard) -> None:
    """Warn of settings of text that a person gave and that change nothing in a family."""
    usual = Text()
    for name in ("clip_skip", "long_prompts", "t5_tokens"):
        if getattr(text, name) != getattr(usual, name) and name not in card.words.reads:
            log.warning(
                "--text.%s changes nothing with %s, which does not read its text so; leave it out.",
                name.replace("_", "-"),
                card.title,
            )


def clip_ids(
    tokenizer: Any, prompts: Sequence[str], text: Text
) -> tuple[Int[Tensor, "b k l"], Float[Tensor, "b k l"]]:
    """Token numbers in parts of the tokenizer's length, each with begin and end, short ones padded; and weights."""
    length = int(tokenizer.model_max_length)
    found = [numbers(tokenizer, prompt, weighted=text.weights) for prompt in prompts]
    longest = max(len(ids) for ids, _ in found)
    count = max(1, -(-longest // (length - 2))) if text.long_prompts else 1
    if longest > count * (length - 2):
        log.warning(
            "A prompt of %d tokens is cut to %d; --text.long-prompts encodes all of it.", longest, length - 2
        )
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [[_part(ids, k, length, (begin, end, pad)) for k in range(count)] for ids, _ in found]
    weights = [[_part(own, k, length, (1.0, 1.0, 1.0)) for k in range(count)] for _, own in found]
    return torch.tensor(ids), torch.tensor(weights)


def _part(values: list[Any], k: int, length: int, marks: tuple[Any, Any, Any]) -> list[Any]:
    """Part k of a row between what stands for begin and end, padded."""
    begin, end, pad = marks
    row = [begin, *values[k * (length - 2) : (k + 1) * (length - 2)], end]
    return row + [pad] * (length - len(row))


def clip_kinds(tokenizer: Any, ids: Int[Tensor, "b k l"]) -> Int[Tensor, "b n"]:
    """What each row is: 0 padding, 1 word, 2 begin, 3 end. Padding may look like the end token."""
    end = first_end(ids, tokenizer.eos_token_id)[..., None]
    position = torch.arange(ids.shape[-1])
    kinds = torch.full_like(ids, WORD)
    kinds[position.expand_as(ids) > end] = PAD
    kinds.scatter_(-1, end, EOS)
    kinds[..., 0] = BOS
    return rearrange(kinds, "b k l -> b (k l)")


def first_end(ids: Int[Tensor, "*b l"], end: int) -> Int[Tensor, "*b"]:
    """Place of the first end token in each row."""
    return (ids == end).int().argmax(-1)


def encode_clip(
    encoder: nn.Module, tokenizer: Any, prompts: Sequence[str], *, text: Text, penultimate: bool
) -> Encoded:
    """CLIP rows and pooled vector.

    Args:
        encoder: CLIPTextModel (last layer, normalized; pooled row) or the one with a projection.
        tokenizer: Its tokenizer.
        prompts: Prompts.
        text: Layers to skip, and what to do with long prompts.
        penultimate: Read the layer before the last, not normalized (SDXL, SD3), instead of the last.
    """
    ids, weights = clip_ids(tokenizer, prompts, text)
    run = partial(
        _run_clip, encoder, end=tokenizer.eos_token_id, skip=text.clip_skip, penultimate=penultimate
    )
    rows, pooled = run(ids)
    if bool((weights != 1).any()):
        nothing, _ = clip_ids(tokenizer, [""], text)
        empty, _ = run(nothing)
        rows = weigh(rows, rearrange(weights, "b k l -> b (k l)"), empty)
    flat = rearrange(ids, "b k l -> b (k l)").to(rows.device)
    return Encoded(rows, pooled, clip_kinds(tokenizer, ids).to(rows.device), flat)


def _run_clip(
    encoder: nn.Module, ids: Int[Tensor, "b k l"], *, end: int, skip: int, penultimate: bool
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b p"]]:
    """Rows of all parts side by side, and the pooled vector of the first part: its last layer's row at the first end.

    transformers pools at the largest number of a row where the settings say `eos_token_id: 2`, as all published ones do;
    a word added to the tokenizer would be taken for the end.
    """
    device = next(encoder.parameters()).device
    output = encoder(rearrange(ids, "b k l -> (b k) l").to(device), output_hidden_states=True)
    _refuse_skip(skip, len(output.hidden_states) - 1 - penultimate)
    if penultimate:
        rows = output.hidden_states[-(skip + 2)]
    elif skip == 0:
        rows = output.last_hidden_state
    else:
        rows = _final_norm(encoder)(output.hidden_states[-(skip + 1)])
    first = rearrange(output.last_hidden_state, "(b k) l d -> b k l d", b=len(ids))[:, 0]
    pooled = first[torch.arange(len(ids)), first_end(ids[:, 0], end).to(device)]
    inner = _unwrapped(encoder)
    if isinstance(inner, CLIPTextModelWithProjection):
        pooled = inner.text_projection(pooled)
    return rearrange(rows, "(b k) l d -> b (k l) d", b=len(ids)), pooled


def _refuse_skip(skip: int, most: int) -> None:
    if skip > most:
        raise StudioError(
            f"clip_skip {skip} leaves no layer of a CLIP text encoder that can skip {most} at most; choose at most {most}.",
            field="text.clip_skip",
        )


def _final_norm(encoder: nn.Module) -> nn.Module:
    inner = _unwrapped(encoder)
    return (
        inner.text_model.final_layer_norm
        if isinstance(inner, CLIPTextModelWithProjection)
        else inner.final_layer_norm
    )


def _unwrapped(encoder: nn.Module) -> nn.Module:
    return encoder.get_submodule("module") if "module" in dict(encoder.named_children()) else encoder


def encode_t5(
    encoder: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    length: int,
    weighted: bool = False,
    masked: bool = False,
) -> Encoded:
    """T5 rows, padded to `length`; without `masked`, padding is read like words (as most pipelines do)."""
    options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    weighted = weighted and marked(prompts)
    ids = torch.tensor([]) if weighted else tokenizer(list(prompts), **options).input_ids
    weights = torch.ones(len(prompts), length)
    if weighted:
        ids, weights = _t5_ids(tokenizer, prompts, length)
    longest = max(len(row) for row in tokenizer(list(prompts), verbose=False).input_ids)
    if longest > length:
        log.warning("A prompt of %d T5 tokens is cut to %d; %s.", longest, length, _more(length))
    device = next(encoder.parameters()).device
    kinds = torch.full_like(ids, WORD)
    kinds[ids == tokenizer.pad_token_id] = PAD
    kinds[ids == tokenizer.eos_token_id] = EOS

    def read(numbers: Tensor) -> Tensor:
        seen = {"attention_mask": (numbers != tokenizer.pad_token_id).to(device)} if masked else {}
        return encoder(numbers.to(device), **seen)[0]

    rows = read(ids)
    if weighted:
        rows = weigh(rows, weights, read(tokenizer([""], **options).input_ids))
    return Encoded(rows, None, kinds.to(device), ids.to(device))


def _more(length: int) -> str:
    return (
        f"--text.t5-tokens reads up to {MAX_T5_TOKENS}" if length < MAX_T5_TOKENS else "no model reads more"
    )


def _t5_ids(
    tokenizer: Any, prompts: Sequence[str], length: int
) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Token numbers and weights of prompts with weights."""
    found = [numbers(tokenizer, prompt, weighted=True) for prompt in prompts]
    rows = [[*ids[: length - 1], tokenizer.eos_token_id] for ids, _ in found]
    weights = [[*own[: length - 1], 1.0] for _, own in found]
    padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor([row + [1.0] * (length - len(row)) for row in weights])

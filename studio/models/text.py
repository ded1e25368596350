"""Prompts to embeddings with CLIP and T5, as diffusers' pipelines do it.

Axes: `b` prompts, `k` parts of a long prompt, `l` tokens of a part, `d` width.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from studio.models.config import Text

log = logging.getLogger(__name__)

PAD, WORD, BOS, EOS = 0, 1, 2, 3
"""What a token is."""


@dataclass(frozen=True)
class Encoded:
    """What one text encoder says: rows, one vector a prompt (CLIP only), and what each row is."""

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b p"] | None
    kinds: Int[Tensor, "b n"]


def clip_ids(tokenizer: Any, prompts: Sequence[str], *, long_prompts: bool) -> Int[Tensor, "b k l"]:
    """Token numbers in parts of the tokenizer's length, each with begin and end; short ones padded."""
    length = int(tokenizer.model_max_length)
    words = [tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids for prompt in prompts]
    longest = max(len(ids) for ids in words)
    parts = max(1, -(-longest // (length - 2))) if long_prompts else 1
    if longest > parts * (length - 2):
        log.warning(
            "A prompt of %d tokens is cut to %d; set long_prompts to encode all of it.", longest, length - 2
        )
    return torch.tensor([[_part(tokenizer, ids, k, length) for k in range(parts)] for ids in words])


def _part(tokenizer: Any, ids: list[int], k: int, length: int) -> list[int]:
    taken = ids[k * (length - 2) : (k + 1) * (length - 2)]
    row = [tokenizer.bos_token_id, *taken, tokenizer.eos_token_id]
    return row + [tokenizer.pad_token_id] * (length - len(row))


def clip_kinds(tokenizer: Any, ids: Int[Tensor, "b k l"]) -> Int[Tensor, "b n"]:
    """What each row is: 0 padding, 1 word, 2 begin, 3 end. Padding may look like the end token."""
    first_end = (ids == tokenizer.eos_token_id).int().argmax(-1, keepdim=True)
    position = torch.arange(ids.shape[-1])
    kinds = torch.full_like(ids, WORD)
    kinds[position.expand_as(ids) > first_end] = PAD
    kinds.scatter_(-1, first_end, EOS)
    kinds[..., 0] = BOS
    return rearrange(kinds, "b k l -> b (k l)")


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
    ids = clip_ids(tokenizer, prompts, long_prompts=text.long_prompts)
    device = next(encoder.parameters()).device
    output = encoder(rearrange(ids, "b k l -> (b k) l").to(device), output_hidden_states=True)
    if penultimate:
        rows = output.hidden_states[-(text.clip_skip + 2)]
    elif text.clip_skip == 0:
        rows = output.last_hidden_state
    else:
        rows = _final_norm(encoder)(output.hidden_states[-(text.clip_skip + 1)])
    pooled = output[0] if output[0].ndim == 2 else output.pooler_output
    count = len(prompts)
    return Encoded(
        rearrange(rows, "(b k) l d -> b (k l) d", b=count),
        rearrange(pooled, "(b k) p -> b k p", b=count)[:, 0],
        clip_kinds(tokenizer, ids).to(device),
    )


def _final_norm(encoder: nn.Module) -> nn.Module:
    inner = encoder.get_submodule("module") if "module" in dict(encoder.named_children()) else encoder
    return (
        inner.text_model.final_layer_norm
        if isinstance(inner, CLIPTextModelWithProjection)
        else inner.final_layer_norm
    )


def encode_t5(encoder: nn.Module, tokenizer: Any, prompts: Sequence[str], *, length: int) -> Encoded:
    """T5 rows, padded to `length` (diffusers passes no mask, so padding is read like words)."""
    options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    ids = tokenizer(list(prompts), **options).input_ids
    longest = max(len(row) for row in tokenizer(list(prompts), verbose=False).input_ids)
    if longest > length:
        log.warning("A prompt of %d T5 tokens is cut to %d; set t5_tokens to read more.", longest, length)
    device = next(encoder.parameters()).device
    kinds = torch.full_like(ids, WORD)
    kinds[ids == tokenizer.pad_token_id] = PAD
    kinds[ids == tokenizer.eos_token_id] = EOS
    return Encoded(encoder(ids.to(device))[0], None, kinds.to(device))

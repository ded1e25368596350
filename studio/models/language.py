"""Prompts to the hidden states of a language model, as diffusers' pipelines with Qwen3 or Mistral read them: no CLIP, no T5.

A prompt is a message of a user in the model's chat template. What stands before the prompt in it counts as begin, what stands
behind it as end. Axes: `b` prompts, `l` tokens, `d` width, `k` layers read.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import ProcessorMixin

from studio.models.text import BOS, EOS, PAD, WORD, Encoded
from studio.models.weighting import marked
from studio.settings.sampling import Text

log = logging.getLogger(__name__)
_PROMPT = "\x00"
"""Stands for a prompt that is looked for in a template."""

Render = Callable[[str], str]


def chat(tokenizer: Any, *, system: str = "", parts: bool = False, **options: Any) -> Render:
    """Writes a prompt as the message of a user, and the start of the model's answer after it.

    Args:
        tokenizer: Has the chat template.
        system: What stands before it.
        parts: Contents are lists of parts; as plain text some templates leave them out without a word, others as lists.
        **options: Of the template, such as `enable_thinking`.
    """

    def message(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}

    def render(prompt: str) -> str:
        before = [message("system", system)] if system else []
        return tokenizer.apply_chat_template([*before, message("user", prompt)], tokenize=False, **options)

    return render


@dataclass(frozen=True)
class Reading:
    """How a family reads a language model.

    Attributes:
        render: Writes a prompt into the template.
        layers: Hidden states to read, 0 the embedded tokens; of several, each row has all, one after another.
        length: Tokens at most; a longer prompt is cut at its end, the template's included.
        padding: Up to the longest prompt, or to `length`.
        dropped: Rows at the start, of the template, that are not given.
        keeps_end: A prompt that is too long is cut itself, and the template's end stays.
    """

    render: Render
    layers: Sequence[int]
    length: int
    padding: Literal["longest", "max_length"]
    dropped: int = 0
    keeps_end: bool = False


def encode_chat(
    encoder: Any, tokenizer: Any, prompts: Sequence[str], reading: Reading, **pictures: Tensor
) -> tuple[Encoded, Bool[Tensor, "b l"]]:
    """Hidden states of some layers side by side, and which rows have a token. Tokens never look at padding.

    Args:
        encoder: The language model, with or without a head.
        tokenizer: Its tokenizer.
        prompts: Prompts.
        reading: What of it is read.
        **pictures: What a vision-language model takes of pictures, beside their tokens in the template.
    """
    ids, there, kinds = _tokens(tokenizer, prompts, reading)
    device = next(encoder.parameters()).device
    output = encoder.base_model(  # without the head, whose words nobody reads
        input_ids=ids.to(device),
        attention_mask=there.to(device),
        output_hidden_states=True,
        use_cache=False,
        **{key: value.to(device) for key, value in pictures.items()},
    )
    read: Float[Tensor, "k b l d"] = torch.stack([output.hidden_states[layer] for layer in reading.layers])
    rows = rearrange(read, "k b l d -> b l (k d)")[:, (first := reading.dropped) :]
    kinds, ids, there = (one[:, first:].to(device) for one in (kinds, ids, there))
    return Encoded(rows, None, kinds, ids), there.bool()


def tokenizer_of(words: Any) -> Any:
    """The tokenizer inside of a processor; a tokenizer itself."""
    return words.tokenizer if isinstance(words, ProcessorMixin) else words


def quarters(encoder: nn.Module) -> tuple[int, int, int]:
    """The layers after a quarter, a half and three quarters: FLUX.2's 9, 18, 27 of Qwen3's 36, and 10, 20, 30 of Mistral's 40."""
    config: Any = encoder.config
    step = config.get_text_config().num_hidden_layers // 4
    return step, 2 * step, 3 * step


def told_of_weights(title: str, prompts: Sequence[str], text: Text) -> None:
    """Warn of weights in prompts: a language model reads the brackets (ComfyUI has none for these models either)."""
    if text.weights and marked(prompts):
        log.warning("%s reads no weights in prompts; brackets are read as they are written.", title)


def _tokens(
    tokenizer: Any, prompts: Sequence[str], reading: Reading
) -> tuple[Int[Tensor, "b l"], Int[Tensor, "b l"], Int[Tensor, "b l"]]:
    """Numbers, which of them are no padding, and what each is."""
    tokenizer = tokenizer_of(tokenizer)
    before, after = reading.render(_PROMPT).split(_PROMPT)
    texts = [reading.render(prompt) for prompt in prompts]
    plain = {"add_special_tokens": False}  # the template has them
    if reading.keeps_end:
        room = reading.length - len(tokenizer(after, **plain).input_ids)
        texts = [_cut(tokenizer, text.removesuffix(after), room) + after for text in texts]
    options = plain | {"padding": reading.padding, "max_length": reading.length, "truncation": True}
    found = tokenizer(texts, return_tensors="pt", return_offsets_mapping=True, **options)
    longest = max(len(row) for row in tokenizer(texts, verbose=False, **plain).input_ids)
    if longest > reading.length:
        log.warning("A prompt of %d tokens with its template is cut to %d.", longest, reading.length)
    start: Int[Tensor, "b l"] = found.offset_mapping[..., 0]
    ends = torch.tensor([len(text) - len(after) for text in texts])
    kinds = torch.full_like(start, WORD)
    kinds[start < len(before)] = BOS
    kinds[start >= rearrange(ends, "b -> b 1")] = EOS
    kinds[found.attention_mask == 0] = PAD
    return found.input_ids, found.attention_mask, kinds


def _cut(tokenizer: Any, text: str, room: int) -> str:
    """The first `room` tokens of a text."""
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
    if len(offsets) <= room:
        return text
    log.warning("A prompt of %d tokens with its template is cut to %d.", len(offsets), room)
    return text[: offsets[room - 1][1]]

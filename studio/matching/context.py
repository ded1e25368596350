"""Learned vectors among the tokens of a tower, without touching the library's own forward pass.

Axes: `n` texts or pictures, `l` tokens of a text, `m` learned tokens, `w` width of a tower.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from studio.errors import StudioError
from studio.models.dual import DualEncoder

Place = Literal["end", "middle", "front"]
"""Where the words stand: behind, amid or before the learned tokens."""


def with_slots(
    model: DualEncoder, texts: Sequence[str], count: int, place: Place
) -> tuple[Int[Tensor, "n l"], Bool[Tensor, "n l"]]:
    """Token ids with `count` free places beside the words, and where these places are.

    A free place holds the text's own first token, since the ids also say where a text ends.

    Raises:
        StudioError: No word fits beside so many places.
    """
    ids = model.tokenize(texts)
    words = model.words_mask(ids)
    made, slots = ids.clone(), torch.zeros_like(words)
    for row in range(len(ids)):
        start = 1 if model.has_start_token else 0
        room = model.context_length - start - 1 - count
        if room < 1:
            raise StudioError(
                f"A context of {count} tokens leaves no room for a name: {model.name!r} reads {model.context_length} tokens; "
                "choose a shorter one.",
                field="tuning",
            )
        spoken = ids[row][words[row]][:room]
        tail = ids[row][~words[row]][start:]  # the end token and the padding
        before = {"end": count, "middle": count // 2, "front": 0}[place]
        filler = spoken[:1]
        line = [ids[row][:start], filler.expand(before), spoken, filler.expand(count - before), tail[:1]]
        whole = torch.cat(line)
        padding = tail[1] if len(tail) > 1 else tail[0]
        made[row] = torch.cat([whole, padding.expand(model.context_length - len(whole))])
        slots[row, start : start + before] = True
        slots[row, start + before + len(spoken) : start + count + len(spoken)] = True
    return made.to(model.device), slots.to(model.device)


def phrase_vectors(model: DualEncoder, phrase: str) -> Float[Tensor, "m w"]:
    """The input vectors of a phrase, one a token."""
    ids = model.tokens([phrase])
    return model.token_embedding.weight.detach()[ids[model.words_mask(ids)]].float().clone()


def fill(x: Tensor, slots: Bool[Tensor, "n l"], vectors: Tensor) -> Tensor:
    """Tokens with the free places taken by vectors: the same for all texts (m w), or for each (n m w)."""
    each = vectors if vectors.ndim == 3 else repeat(vectors, "m w -> n m w", n=len(slots))
    return x.masked_scatter(slots[..., None], each.to(x.dtype))


@contextmanager
def text_context(model: DualEncoder, slots: Bool[Tensor, "n l"], layers: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the text tower reads `layers[0]` in the free places, and `layers[i]` at the input of block i."""
    with ExitStack() as stack:
        embedding: Any = model.token_embedding  # torch's stub takes no hook that reads tensors
        first = embedding.register_forward_hook(lambda _m, _i, output: fill(output, slots, layers[0]))
        stack.callback(first.remove)
        for block, vectors in zip(model.blocks("text")[1:], layers[1:], strict=False):
            stack.callback(_before(block, lambda x, vectors=vectors: fill(x, slots, vectors)).remove)
        yield


@contextmanager
def image_context(model: DualEncoder, layers: Sequence[Float[Tensor, "m w"]]) -> Iterator[None]:
    """Inside, the image tower has further tokens behind the patches, new ones at the input of each of `layers`.

    The first ones stand before the tower's own norm where it has one, as in MaPLe's and PromptSRC's code (`ln_pre`).
    """
    blocks, count = model.blocks("image"), len(layers[0])

    def added(x: Tensor, vectors: Tensor) -> Tensor:
        return torch.cat([x, repeat(vectors.to(x.dtype), "m w -> n m w", n=len(x))], dim=1)

    with ExitStack() as stack:
        stack.callback(_before(model.entry(), lambda x: added(x, layers[0])).remove)
        for block, vectors in zip(blocks[1:], layers[1:], strict=False):
            stack.callback(_before(block, lambda x, vectors=vectors: added(x[:, :-count], vectors)).remove)
        last = blocks[-1].register_forward_hook(lambda _module, _inputs, output: output[:, :-count])
        stack.callback(last.remove)
        yield


def _before(block: nn.Module, change: Any) -> Any:
    """Change a block's first input."""
    return block.register_forward_pre_hook(lambda _module, inputs: (change(inputs[0]), *inputs[1:]))

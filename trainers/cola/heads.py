"""What COLA trains on a frozen CLIP: its multimodal adapter, and the baselines linear probe and prompt tuning.

Axes: `b` pictures, `t` captions, `p` pairs of both, `n` patches, `l` tokens of a caption, `k` width of the image tower,
`d` width of the text tower or of the features, `q` queries.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, assert_never

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import StudioError
from studio.models.dual import DualEncoder, States
from trainers.cola.config import Cola, LinearProbe, Multimodal, PromptTuning

LAYER = -2
"""The states of the layer before the last are read, as in the official code."""
CHUNK = 512
"""Pairs that pass through the adapter at once."""


class Adapter(nn.Module):
    """s = mean over the caption's words j of <o, h_t[j]>, o = decoder(q, encoder([W h_v ; h_t])); the best query counts."""

    def __init__(self, settings: Multimodal, vision_width: int, width: int) -> None:
        super().__init__()
        shape = (width, settings.heads, settings.feed_forward, settings.dropout)
        self.project = nn.Linear(vision_width, width)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*shape, batch_first=True), settings.layers, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*shape, batch_first=True), settings.layers
        )
        self.queries = nn.Parameter(torch.randn(settings.queries, width) * width**-0.5)

    def forward(
        self, patches: Float[Tensor, "p n k"], words: Float[Tensor, "p l d"], mask: Bool[Tensor, "p l"]
    ) -> Float[Tensor, " p"]:
        """Scores of pairs; tokens outside of the mask take no part."""
        both = torch.cat([self.project(patches), words], 1)
        padding = F.pad(~mask, (patches.shape[1], 0), value=False)
        memory = self.encoder(both, src_key_padding_mask=padding)
        asked = repeat(self.queries, "q d -> p q d", p=len(both))
        answers = self.decoder(asked, memory, memory_key_padding_mask=padding)
        fit = torch.einsum("pqd,pld->pql", answers, words) * mask[:, None]
        return (fit.sum(-1) / mask.sum(1).clamp_min(1)[:, None]).amax(1) / words.shape[-1] ** 0.5


class MultimodalHead(nn.Module):
    """COLA's adapter on a CLIP."""

    def __init__(self, settings: Multimodal, clip: DualEncoder) -> None:
        super().__init__()
        width = clip.width("text")
        if width % settings.heads:
            raise StudioError(
                f"head.heads {settings.heads} does not divide the text tower's width {width}; choose a divisor, such as 4.",
                field="head.heads",
            )
        self.adapter, self.grid = Adapter(settings, clip.width("image"), width), settings.grid
        self._clip = (clip,)  # not a part: it is frozen and loaded by name

    @torch.no_grad()
    def see(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Patches, or a grid of their means."""
        tokens = self._clip[0].image_states(images.to(self._clip[0].mean), LAYER).tokens.float()
        if not self.grid:
            return tokens
        side = int(tokens.shape[1] ** 0.5)
        patches = rearrange(tokens, "b (y x) k -> b k y x", y=side)
        return rearrange(F.adaptive_avg_pool2d(patches, self.grid), "b k y x -> b (y x) k")

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> States:
        """Tokens, cut to the longest caption; the mask leaves out start, end and padding."""
        states = self._clip[0].text_states(captions, LAYER)
        longest = int(states.mask.any(0).nonzero().max()) + 1
        return States(states.tokens[:, :longest].float(), states.mask[:, :longest])

    def match(self, seen: Float[Tensor, "b n k"], told: States) -> Float[Tensor, "b t"]:
        """Every picture with every caption through the adapter."""
        rows, columns = len(seen), len(told.tokens)
        first = repeat(torch.arange(rows), "b -> (b t)", t=columns)
        second = repeat(torch.arange(columns), "t -> (b t)", b=rows)
        parts = [
            self.adapter(seen[one], told.tokens[two], told.mask[two])
            for one, two in zip(first.split(CHUNK), second.split(CHUNK), strict=True)
        ]
        return rearrange(torch.cat(parts), "(b t) -> b t", b=rows)


class LinearHead(nn.Module):
    """Scaled cosines of linearly mapped features."""

    def __init__(self, clip: DualEncoder) -> None:
        super().__init__()
        width = clip.texts(["a"]).shape[1]
        self.image, self.text = (nn.Linear(width, width, bias=False) for _ in range(2))
        for part in (self.image, self.text):
            nn.init.eye_(part.weight)
        self._clip = (clip,)

    @torch.no_grad()
    def see(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features."""
        return self._clip[0].images(images.to(self._clip[0].mean)).float()

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Float[Tensor, "t d"]:
        """Features."""
        return self._clip[0].texts(captions).float()

    def match(self, seen: Float[Tensor, "b d"], told: Float[Tensor, "t d"]) -> Float[Tensor, "b t"]:
        """Scaled cosines."""
        sides = (F.normalize(self.image(seen), dim=-1), F.normalize(self.text(told), dim=-1))
        return self._clip[0].logits(*sides)


class PromptHead(nn.Module):
    """Scaled cosines, with learned vectors in front of the words of every caption."""

    def __init__(self, settings: PromptTuning, clip: DualEncoder) -> None:
        super().__init__()
        self.context = nn.Parameter(0.02 * torch.randn(settings.tokens, clip.token_embedding.embedding_dim))
        self._clip = (clip,)

    @torch.no_grad()
    def see(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features."""
        return self._clip[0].images(images.to(self._clip[0].mean)).float()

    def read(self, captions: Sequence[str]) -> Float[Tensor, "t d"]:
        """Features of the prompted captions.

        Raises:
            StudioError: The vectors leave no room for a caption.
        """
        clip, count = self._clip[0], len(self.context)
        tokens = clip.tokens(captions)
        front = int(clip.has_start_token)
        if bool(clip.words_mask(tokens)[:, tokens.shape[1] - count - 1 :].any()):
            raise StudioError(
                f"head.tokens {count} leaves no room for a caption in the {clip.context_length} tokens that the text "
                "tower reads; choose fewer.",
                field="head.tokens",
            )
        held = tokens[:, front : front + 1].expand(-1, count)  # any word: its vector is replaced
        longer = torch.cat([tokens[:, :front], held, tokens[:, front:-count]], 1)
        with _inserted(clip.token_embedding, self.context, front):
            return F.normalize(clip.encode_tokens(longer), dim=-1).float()

    def match(self, seen: Float[Tensor, "b d"], told: Float[Tensor, "t d"]) -> Float[Tensor, "b t"]:
        """Scaled cosines."""
        return self._clip[0].logits(seen, told)


@contextmanager
def _inserted(table: nn.Embedding, context: Tensor, front: int) -> Iterator[None]:
    """Learned vectors in place of the ones looked up, behind the first `front`."""

    def replaced(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        own = context.to(output.dtype).expand(len(output), -1, -1)
        return torch.cat([output[:, :front], own, output[:, front + len(context) :]], 1)

    handle = table.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def build(settings: Cola, clip: DualEncoder) -> MultimodalHead | LinearHead | PromptHead:
    """The head that the settings name; fresh weights come from torch's global generator."""
    match settings.head:
        case Multimodal():
            return MultimodalHead(settings.head, clip)
        case LinearProbe():
            return LinearHead(clip)
        case PromptTuning():
            return PromptHead(settings.head, clip)
        case _:
            assert_never(settings.head)

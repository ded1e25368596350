"""Coupled self-attention: the pictures of a set look at each other in every self-attention layer.

Rows are set-major: row = set * n + member. Everything but self-attention stays each row's own. In the joint attention
of transformers a picture sees the pictures of its set and its own text, a text sees itself and its own picture.
U-Nets have no positions in self-attention, and SD3's are the same for every member; where a family has a position axis
to spare (FLUX, Z-Image: the first of RoPE), member i stands i further on it. A set of one is the layer as it is.

Axes: `b` sets, `n` members, `r` rows (b n), `l` tokens of a picture, `d` width of a head.
"""

import contextlib
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from studio.models.attention import Ordinary
from studio.models.base import Family

ROPE_BASE = 10000.0
"""Base of the rotary frequencies, where a denoiser's settings name none (FLUX.1)."""


@dataclass(frozen=True)
class Coupling:
    """Which rows see which.

    Attributes:
        size: Members of every set (n).
        coupled: Sets whose members see each other; in the others everyone sees itself. None: all.
        present: Members that are there; the others are padding that nobody sees. None: all.
        axis: Width of the position axis that tells members apart; 0 if there is none.
        base: Base of the rotary frequencies; `coupling` takes the denoiser's.
    """

    size: int
    coupled: Bool[Tensor, " b"] | None = None
    present: Bool[Tensor, "b n"] | None = None
    axis: int = 0
    base: float = ROPE_BASE

    def __call__(
        self,
        query: Float[Tensor, "r heads m d"],
        key: Float[Tensor, "r heads k d"],
        value: Float[Tensor, "r heads k d"],
        *,
        cross: bool,
        ordinary: Ordinary,
        **about: object,
    ) -> Float[Tensor, "r heads m d"]:
        """Attention of one layer; see `studio.models.attention.Function`."""
        del about
        if cross or self.size == 1:
            return ordinary(query, key, value)
        if ordinary.mask is not None:  # what padded text itself sees does not matter
            ordinary = replace(ordinary, mask=ordinary.mask.any(dim=2, keepdim=True))
        if self.axis and ordinary.text.stop:
            query, key = (self._placed(x, ordinary.text) for x in (query, key))
        text, picture = ordinary.text, _picture(ordinary.text, query.shape[2])
        keys, values = (self._shared(x, text, picture) for x in (key, value))
        mask = self._mask(picture.stop - picture.start, keys.shape[2], query.device)
        own = ordinary.mask
        if own is not None:
            last = own[:, :, -1:].expand(
                len(query), -1, -1, -1
            )  # a picture's token sees all that is not padding
            there = self._shared_keys(last, text, picture).expand(-1, -1, picture.stop - picture.start, -1)
            mask = there if mask is None else mask & there
        seen = ordinary(query[:, :, picture], keys, values, mask=mask)
        if not text.stop:
            return seen
        words = own if own is None or own.shape[2] == 1 else own[:, :, text]
        told = ordinary(query[:, :, text], key, value, mask=None if words is own else words)
        return torch.cat([told, seen] if text.start == 0 else [seen, told], dim=2)

    def _shared(self, x: Tensor, text: slice, picture: slice) -> Tensor:
        """For every row the tokens of all pictures of its set, and behind them its own text's."""
        n = self.size
        everyone = repeat(x[:, :, picture], "(b n) heads l d -> (b m) heads (n l) d", n=n, m=n)
        return torch.cat([everyone, x[:, :, text]], dim=2) if text.stop else everyone

    def _shared_keys(
        self, mask: Bool[Tensor, "r 1 1 k"], text: slice, picture: slice
    ) -> Bool[Tensor, "r 1 1 keys"]:
        """Which of `_shared` there are, of a mask that leaves out padded text."""
        return rearrange(
            self._shared(rearrange(mask, "r 1 1 k -> r 1 k 1"), text, picture), "r 1 k 1 -> r 1 1 k"
        )

    def _mask(self, tokens: int, keys: int, device: torch.device) -> Bool[Tensor, "r 1 l keys"] | None:
        """Which keys the tokens of a row's picture see; None where they see all."""
        if self.coupled is None and self.present is None:
            return None
        n = self.size
        own = torch.eye(n, dtype=torch.bool, device=device)[None]
        others = torch.ones(1, n, n, dtype=torch.bool, device=device)
        if self.coupled is not None:
            others = others & rearrange(self.coupled, "b -> b 1 1")
        if self.present is not None:
            others = others & rearrange(self.present, "b n -> b 1 n")
        sees = repeat(own | others, "b i j -> (b i) 1 1 (j l)", l=tokens)
        whole = torch.nn.functional.pad(sees, (0, keys - sees.shape[-1]), value=True)
        return whole.expand(-1, -1, tokens, -1)

    def _placed(self, x: Tensor, text: slice) -> Tensor:
        """Picture tokens of member i turned by i on the first position axis, where all of a picture stand at one place."""
        picture = _picture(text, x.shape[2])
        half = torch.arange(0, self.axis, 2, dtype=torch.float64, device=x.device) / self.axis
        member = torch.arange(len(x), device=x.device) % self.size
        angle = rearrange(member, "r -> r 1 1 1") * self.base**-half
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        real, imaginary = rearrange(x[:, :, picture, : self.axis], "r h l (p two) -> two r h l p", two=2)
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
        placed = x.clone()
        placed[:, :, picture, : self.axis] = rearrange(turned, "r h l p two -> r h l (p two)")
        return placed


def _picture(text: slice, total: int) -> slice:
    """Where the picture's tokens lie in a joint sequence."""
    if not text.stop:
        return slice(0, total)
    return slice(text.stop, total) if text.start == 0 else slice(0, text.start)


def coupling(family: Family, coupled: Coupling) -> contextlib.AbstractContextManager[None]:
    """Couple the self-attention of a family's denoiser while the context is open."""
    base = float(family.denoiser_config.get("rope_theta", ROPE_BASE))
    placed = replace(coupled, base=base)
    return family.attending_where(lambda _layer: placed)

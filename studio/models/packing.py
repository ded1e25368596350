"""Latents as the tokens of a transformer: 2 x 2 patches, row by row. Axes: `b` batch, `c h w` latent, `n` tokens."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor


def pack(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
    """2 x 2 patches as tokens."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(tokens: Float[Tensor, "b n k"], height: int) -> Float[Tensor, "b c h w"]:
    """Tokens back to a latent of `height` patches."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=2, q=2)


def image_ids(height: int, width: int) -> Float[Tensor, "n three"]:
    """Row and column of every image token; the first of the three axes is 0."""
    rows = repeat(torch.arange(height), "h -> (h w)", w=width)
    columns = repeat(torch.arange(width), "w -> (h w)", h=height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).float()

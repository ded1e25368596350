"""Pictures as tensors for a judge.

Axes: `b` pictures, `c h w` image. PIL pictures come in, tensors in [-1, 1] go on.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.models.pixels import fit


def flatten(picture: Image.Image) -> Image.Image:
    """RGB, with white behind what is transparent."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    opaque = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")


def to_tensor(picture: Image.Image) -> Float[Tensor, "c h w"]:
    """One picture, in [-1, 1]."""
    array = np.asarray(flatten(picture), dtype=np.float32)
    return rearrange(torch.from_numpy(array), "h w c -> c h w") / 127.5 - 1


def stack(pictures: Sequence[Image.Image], size: int) -> Float[Tensor, "b c s s"]:
    """Pictures of any shapes as one tensor in [-1, 1]."""
    return torch.cat([fit(to_tensor(p)[None], size) for p in pictures])


def content_key(picture: Image.Image) -> str:
    """The same for two pictures that look the same pixel by pixel."""
    flat = flatten(picture)
    return hashlib.sha256(repr(flat.size).encode() + flat.tobytes()).hexdigest()

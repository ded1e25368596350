"""Rewards that need no network.

Axes: `b` pictures, `H W` image.
"""

import io
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from studio.models.pictures import as_pictures

JPEG_QUALITY = 95
"""As in DDPO's code."""


def jpeg_kilobytes(images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """Size of each picture as a JPEG file, in kB (1000 bytes)."""
    sizes: list[float] = []
    for picture in as_pictures(images):
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=JPEG_QUALITY)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes)


def compressible(images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """Minus the size as JPEG, in kB."""
    del prompts
    return -jpeg_kilobytes(images)


def incompressible(images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """Size as JPEG, in kB."""
    del prompts
    return jpeg_kilobytes(images)


def redness(images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """Red less the mean of green and blue, in [-2, 2]. Differentiable."""
    del prompts
    red, green, blue = images.flatten(2).mean(2).unbind(1)
    return red - (green + blue) / 2


def brightness(images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """Mean of all channels, in [-1, 1]. Differentiable."""
    del prompts
    return images.flatten(1).mean(1)

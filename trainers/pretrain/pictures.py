"""Tensors to pictures, and pictures to a sheet."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def to_pictures(images: Float[Tensor, "b 3 h w"]) -> list[Image.Image]:
    """RGB pictures from values in [-1, 1]."""
    bytes_ = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return [Image.fromarray(row.numpy()) for row in rearrange(bytes_, "b c h w -> b h w c").contiguous()]


def to_sheet(pictures: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """Pictures of one size in rows, two pixels apart."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * (width + 2), place // columns * (height + 2)))
    return sheet

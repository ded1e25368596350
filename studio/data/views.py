"""Condition views: an object cut out of its picture by a mask, and seen anew (InstantBooth, arXiv 2304.03411, section 3).

A cut-out has four channels: the picture in [-1, 1] times its mask, and the mask. So 0 is where nothing is, and stays so
under every augmentation. Axes: `b` objects, `h w` picture, `s` side of a view.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from studio.data.view_config import Views

NUMBERS = 6
"""Uniform numbers that a view takes."""
_GRAY_AXIS = 1 / math.sqrt(3)


def cut_out(images: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 4 h w"]:
    """Objects without what is around them."""
    return torch.cat([images * masks, masks], dim=1)


def turn_hues(sprites: Float[Tensor, "b 4 h w"], turns: Float[Tensor, " b"]) -> Float[Tensor, "b 4 h w"]:
    """Premultiplied sprites in [0, 1] with their hues turned by a share of the circle; brightness stays."""
    angle = turns * 2 * math.pi
    cos, side = angle.cos(), angle.sin() * _GRAY_AXIS
    rest = (1 - cos) / 3
    rows = [[cos + rest, rest - side, rest + side], [rest + side, cos + rest, rest - side],
            [rest - side, rest + side, cos + rest]]  # fmt: skip
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2).to(sprites)
    turned = torch.einsum("bij,bjhw->bihw", matrix, sprites[:, :3])
    alpha = sprites[:, 3:]
    return torch.cat([turned.clamp(min=0).minimum(alpha.expand_as(turned)), alpha], dim=1)


def boxes(
    masks: Float[Tensor, "b 1 h w"],
) -> tuple[Float[Tensor, "b two"], Float[Tensor, " b"]]:
    """Middle (x, y) and half the larger side of each object, where the picture spans [-1, 1]; all of it if there is none."""
    solid = masks[:, 0] > 0.5
    ends = []
    for there in (solid.any(dim=1), solid.any(dim=2)):
        size = there.shape[1]
        first = there.float().argmax(dim=1)
        last = size - 1 - there.flip(1).float().argmax(dim=1)
        ends.append(torch.stack([first * 2 / size - 1, (last + 1) * 2 / size - 1], -1))
    sides = torch.stack(ends, dim=1).to(masks)
    return sides.mean(-1), ((sides[..., 1] - sides[..., 0]) / 2).amax(-1)


def see(
    cutouts: Float[Tensor, "b 4 h w"], settings: Views, numbers: Float[Tensor, "b k"], size: int
) -> Float[Tensor, "b 4 s s"]:
    """Each object cropped, scaled, turned and mirrored as its numbers in [0, 1) say."""
    middle, half = boxes(cutouts[:, 3:])
    u = numbers.to(cutouts)
    low, high = settings.scale
    share = low + (high - low) * u[:, 0]
    angle = (2 * u[:, 1] - 1) * math.radians(settings.rotation)
    mirror = torch.where(u[:, 2] < settings.flip, -1.0, 1.0)
    zoom = half / share
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    linear = torch.stack([torch.stack([cos * mirror, sin * mirror], 1), torch.stack([-sin, cos], 1)], 1)
    room = (2 * u[:, 3:5] - 1) * (1 - share)[:, None]
    shift = middle - torch.einsum("bij,bj->bi", linear, room)
    grid = F.affine_grid(
        torch.cat([linear, shift[..., None]], 2), [len(cutouts), 4, size, size], align_corners=False
    )
    return F.grid_sample(cutouts, grid, align_corners=False, padding_mode="zeros")


def fill(
    views: Float[Tensor, "b 4 s s"],
    backgrounds: Float[Tensor, "b 3 s s"],
    settings: Views,
    numbers: Float[Tensor, "b k"],
) -> Float[Tensor, "b 3 s s"]:
    """Views as pictures in [-1, 1]: some on a background, the others on nothing."""
    shown = rearrange((numbers[:, 5] < settings.background).to(views), "b -> b 1 1 1")
    return (views[:, :3] + (1 - views[:, 3:]) * backgrounds * shown).clamp(-1, 1)

"""Captioned sticker scenes, composed on the fly: an object in one of four styles on one of many backgrounds.

Everything about a scene follows from the numbers of one `torch.Generator`, so that step n of a resumed run sees the
scenes of the uninterrupted run. Axes: `b` scenes, `s` styles, `n` concepts, `c h w` image.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from studio.data import sticker_backgrounds as backgrounds
from studio.data.sticker_captions import CaptionParts, write_caption
from studio.data.sticker_concepts import COLORS, STYLES
from studio.data.sticker_config import Stickers

FOLDER = Path(__file__).parents[2] / "assets" / "stickers"
SIZE = 64
CORNERS = ("top left", "top right", "bottom left", "bottom right")
_NUM_PHOTOS = 3
_HELD_OUT_STRIDE = 16
"""One of so many pairs of concept and background is kept out of training scenes, to be asked for later."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """A batch of scenes. Images are RGB in [-1, 1]; all else says what they show."""

    images: Float[Tensor, "b 3 64 64"]
    captions: list[str]
    concepts: Int[Tensor, " b"]
    styles: Int[Tensor, " b"]
    kinds: Int[Tensor, " b"]
    colors: Int[Tensor, "b two"]
    places: list[str]


@cache
def index() -> tuple[dict[str, str], ...]:
    """The concepts, most nameable first: name, group, label, hexcode."""
    return tuple(json.loads((FOLDER / "index.json").read_text("utf-8")))


def names(num_concepts: int) -> list[str]:
    """The plain names of the first concepts, which are also the class labels."""
    return [row["name"] for row in index()[:num_concepts]]


@cache
def load_sprites() -> Tensor:
    """All sprites as premultiplied RGBA uint8, [style, concept, 4, 64, 64]."""
    sheets = []
    for style in STYLES:
        sheet = torch.from_numpy(np.asarray(Image.open(FOLDER / f"{style}.webp").convert("RGBa")).copy())
        sprites = rearrange(sheet, "(r h) (k w) c -> (r k) c h w", h=SIZE, w=SIZE)
        sheets.append(sprites[: len(index())])
    return torch.stack(sheets)


@cache
def load_photos() -> Tensor:
    """The gray texture photos (brick, grass, gravel) in [0, 1]."""
    sheet = torch.from_numpy(np.asarray(Image.open(FOLDER / "textures.png").convert("L")).copy())
    return rearrange(sheet, "h (t w) -> t h w", t=_NUM_PHOTOS) / 255


def is_held_out(concepts: Int[Tensor, " b"], kinds: Int[Tensor, " b"], first: Int[Tensor, " b"]) -> Tensor:
    """Which pairs of concept and background never occur in training scenes (solid colors and plain textures)."""
    num_plain = len(backgrounds.PLAIN_KINDS)
    place = torch.where(kinds == 0, first, len(COLORS) + kinds - 2)
    single = (kinds == 0) | ((kinds >= 2) & (kinds < 2 + num_plain))
    return single & ((7 * concepts + place) % _HELD_OUT_STRIDE == 0)


def held_out_pairs(num_concepts: int) -> Int[Tensor, "p three"]:
    """All pairs that training never sees, as (concept, background kind, color)."""
    num_kinds = 2 + len(backgrounds.PLAIN_KINDS)
    grid = torch.cartesian_prod(
        torch.arange(num_concepts), torch.arange(num_kinds), torch.arange(len(COLORS))
    )
    grid = grid[(grid[:, 1] == 0) | (grid[:, 2] == 0)]
    return grid[is_held_out(*grid.unbind(1))]


def _avoid_held_out(concepts: Tensor, kinds: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Moves a held-out pair to the next color or texture, which is never held out too."""
    wrong = is_held_out(concepts, kinds, first)
    following = 2 + (kinds - 1) % len(backgrounds.PLAIN_KINDS)
    first = torch.where(wrong & (kinds == 0), (first + 1) % len(COLORS), first)
    return torch.where(wrong & (kinds > 0), following, kinds), first


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a batch will show, before any pixel is computed; all tensors are on the CPU."""

    concepts: Int[Tensor, " b"]
    styles: Int[Tensor, " b"]
    kinds: Int[Tensor, " b"]
    colors: Int[Tensor, "b two"]
    numbers: Float[Tensor, "b k"]
    noise: Float[Tensor, "painted 1 h w"]


def plan_scenes(
    settings: Stickers, count: int, rng: torch.Generator, *, held_out: bool = False, painted: bool = True
) -> Plan:
    """Draws what `count` scenes show.

    Args:
        settings: What may occur.
        count: Number of scenes.
        rng: Where all numbers come from.
        held_out: Draw only the pairs that training never sees.
        painted: Whether the scenes will be painted; if not, the noise of the textures is not drawn.
    """
    numbers = torch.rand(count, 24, generator=rng)
    noise = torch.rand(count if painted else 0, 1, SIZE, SIZE, generator=rng)
    concepts = (numbers[:, 0] * settings.num_concepts).long()
    chosen = torch.tensor([STYLES.index(style) for style in settings.styles])
    styles = chosen[(numbers[:, 1] * len(chosen)).long()]
    num_textures = len(backgrounds.KINDS) - 2
    texture = 2 + (numbers[:, 3] * num_textures).long()
    kinds = torch.where(numbers[:, 2] < settings.textured + settings.gradient, 1, 0)
    kinds = torch.where(numbers[:, 2] < settings.textured, texture, kinds)
    first = (numbers[:, 4] * len(COLORS)).long()
    second = (first + 1 + (numbers[:, 5] * (len(COLORS) - 1)).long()) % len(COLORS)
    if held_out:
        pairs = held_out_pairs(settings.num_concepts)
        concepts, kinds, first = pairs[(numbers[:, 0] * len(pairs)).long()].unbind(1)
    else:
        kinds, first = _avoid_held_out(concepts, kinds, first)
    second = torch.where(second == first, (second + 1) % len(COLORS), second)
    colors = torch.stack([first, second], 1)
    return Plan(concepts=concepts, styles=styles, kinds=kinds, colors=colors, numbers=numbers, noise=noise)


def paint_backgrounds(plan: Plan, jitter: float, device: torch.device) -> Float[Tensor, "b 3 64 64"]:
    """The backgrounds of a plan, RGB in [0, 1]."""
    palette = torch.tensor(list(COLORS.values()), device=device) / 255
    numbers, noise = plan.numbers.to(device), plan.noise.to(device)
    colors = palette[plan.colors.to(device)]
    shift = rearrange(numbers[:, 6:12], "b (two c) -> b two c", two=2) - 0.5
    colors = (colors + jitter * shift).clamp(0, 1)
    photos = load_photos().to(device)
    canvas = torch.empty(len(noise), 3, SIZE, SIZE, device=device)
    for kind in plan.kinds.unique().tolist():
        rows = torch.nonzero(plan.kinds == kind)[:, 0].to(device)
        name = backgrounds.KINDS[kind]
        canvas[rows] = backgrounds.paint(name, colors[rows], numbers[rows, 12:20], noise[rows], photos)
    return canvas


def place_objects(plan: Plan, settings: Stickers) -> tuple[Float[Tensor, "b 2 3"], list[str]]:
    """Where the objects go: inverse affine maps for `affine_grid`, and the words for it."""
    u = plan.numbers
    mode = u[:, 20]
    centered = mode < settings.centered
    small = ~centered & (mode < settings.centered + (1 - settings.centered) * 0.4)
    low, high = settings.scale
    scale = torch.where(centered, low + (high - low) * u[:, 21], 0.3 + 0.15 * u[:, 21])
    corner = (u[:, 22] * len(CORNERS)).long()
    scale = torch.where(centered | small, scale, 0.45 + 0.15 * u[:, 21])
    room = (1 - scale).clamp(min=0)
    wobble = torch.stack([u[:, 13], u[:, 14]], 1) - 0.5
    offset = wobble * torch.where(centered, 0.5, 0.8)[:, None] * room[:, None]
    signs = torch.stack([corner % 2 * 2.0 - 1, corner // 2 * 2.0 - 1], 1)
    offset = torch.where((centered | small)[:, None], offset, signs * 0.85 * room[:, None])
    turned = u[:, 23] < settings.rotated
    angle = torch.where(turned, (u[:, 15] - 0.5) * 2 * np.pi * 25 / 180, 0.0)
    mirror = torch.where(mirrored(plan, settings), -1.0, 1.0)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    linear = torch.stack([torch.stack([cos * mirror, sin * mirror], 1), torch.stack([-sin, cos], 1)], 1)
    shift = -torch.einsum("bij,bj->bi", linear, offset)
    places = [
        "" if c else "small" if s else CORNERS[k] for c, s, k in zip(centered, small, corner, strict=True)
    ]
    return torch.cat([linear, shift[..., None]], 2), places


def mirrored(plan: Plan, settings: Stickers) -> Bool[Tensor, " b"]:
    """Which objects are seen from the other side."""
    return plan.numbers[:, 16] < settings.mirrored


def write_captions(plan: Plan, settings: Stickers, places: list[str]) -> list[str]:
    """A caption for each scene of a plan."""
    color_names, rows = list(COLORS), index()
    table = zip(
        plan.concepts.tolist(), plan.styles.tolist(), plan.kinds.tolist(), plan.colors.tolist(), places,
        plan.numbers[:, 17:19].tolist(), strict=True,
    )  # fmt: skip
    return [
        write_caption(
            CaptionParts(
                name=rows[concept]["name"],
                group=rows[concept]["group"],
                style=STYLES[style],
                background=backgrounds.phrase(
                    backgrounds.KINDS[kind], color_names[first], color_names[second]
                ),
                place=place,
            ),
            template,
            group,
            settings.group_captions,
        )
        for concept, style, kind, (first, second), place, (template, group) in table
    ]


def _grid(maps: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b h w 2"]:
    """`affine_grid` without its slow batched product on CPUs."""
    line = (torch.arange(SIZE, device=maps.device) + 0.5) * 2 / SIZE - 1
    row = rearrange(line, "w -> w 1") * maps[:, None, None, :, 0]
    column = rearrange(line, "h -> h 1 1") * maps[:, None, None, :, 1]
    return row + column + maps[:, None, None, :, 2]


def paste(
    canvas: Float[Tensor, "b 3 64 64"], sprites: Float[Tensor, "b 4 64 64"], maps: Float[Tensor, "b 2 3"]
) -> Float[Tensor, "b 3 64 64"]:
    """Backgrounds in [0, 1] with premultiplied sprites on them, in [-1, 1]."""
    layer = F.grid_sample(sprites, _grid(maps.to(canvas.device)), align_corners=False, padding_mode="zeros")
    return (canvas * (1 - layer[:, 3:]) + layer[:, :3]).clamp(0, 1) * 2 - 1


def compose(plan: Plan, settings: Stickers, device: torch.device | str = "cpu") -> Scenes:
    """Computes the pixels of a plan on `device` and writes its captions."""
    device = torch.device(device)
    canvas = paint_backgrounds(plan, settings.color_jitter, device)
    maps, places = place_objects(plan, settings)
    sprites = load_sprites()[plan.styles, plan.concepts].to(device) / 255
    return Scenes(
        images=paste(canvas, sprites, maps),
        captions=write_captions(plan, settings, places),
        concepts=plan.concepts,
        styles=plan.styles,
        kinds=plan.kinds,
        colors=plan.colors,
        places=places,
    )


def draw_scenes(settings: Stickers, count: int, rng: torch.Generator, *, held_out: bool = False) -> Scenes:
    """A batch of scenes on the CPU, a pure function of the settings and the generator's state."""
    return compose(plan_scenes(settings, count, rng, held_out=held_out), settings)

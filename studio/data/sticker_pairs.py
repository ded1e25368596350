"""Scenes of two objects with an attribute each, in twins whose attributes are swapped: composed on the fly.

    "a fox on a red background and an apple on a blue background"      twin: fox on blue, apple on red
    "a flat fox and a 3d apple"                                        twin: 3d fox, flat apple

A model that only knows which words occur cannot tell twins apart. Some pairs of object and attribute never occur in
training. Axes: `g` groups of two twins, `b` = 2 g scenes, twin after twin; `o` = 2 objects; `h w` pixels.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from studio.data.sticker_captions import with_article
from studio.data.sticker_concepts import COLORS, STYLES
from studio.data.sticker_config import StickerPairs
from studio.data.stickers import SIZE, index, load_sprites

PLATES = ("red", "yellow", "blue", "green", "purple", "pink", "orange", "teal", "brown")
"""Colors of plates, in an order that keeps the first ones far apart."""
HELD_OUT_STRIDE = 5
"""One of so many pairs of object and attribute is kept out of training."""
JITTER = 0.06
_TRIES = 64


@dataclass(frozen=True, kw_only=True)
class Twins:
    """A batch of scenes. Images are RGB in [-1, 1]; row 2 g + 1 is row 2 g with its attributes swapped."""

    images: Float[Tensor, "b 3 64 64"]
    captions: list[str]
    concepts: Int[Tensor, "b two"]
    attributes: Int[Tensor, "b two"]


def attributes(settings: StickerPairs) -> tuple[str, ...]:
    """Names of the attributes that occur."""
    return PLATES[: settings.num_colors] if settings.attribute == "color" else STYLES


def phrase(settings: StickerPairs, concept: int, attribute: int) -> str:
    """What a caption says of one object."""
    name, word = index()[concept]["name"], attributes(settings)[attribute]
    if settings.attribute == "color":
        return f"{with_article(name)} on a {word} background"
    return f"a {word} {name}"


def is_held_out(concepts: Tensor, found: Tensor) -> Tensor:
    """Which pairs of object and attribute training never shows."""
    return (3 * concepts + found) % HELD_OUT_STRIDE == 0


def draw_twins(
    settings: StickerPairs, count: int, rng: torch.Generator, *, held_out: bool = False, hard: bool = True
) -> Twins:
    """A batch of `count` groups on the CPU, a pure function of the settings and the generator's state.

    Args:
        settings: What may occur.
        count: Groups of two scenes.
        rng: Where all numbers come from.
        held_out: Only groups in which each scene has a pair of object and attribute that training never shows.
        hard: Objects of the whole batch come from a pool of a few.
    """
    pool = torch.randperm(settings.num_concepts, generator=rng)[: settings.pool if hard else None]
    concepts, found = _chosen(settings, count, pool, rng, held_out=held_out)
    swapped = torch.stack([found, found.flip(1)], 1)
    concepts = repeat(concepts, "g o -> (g twins) o", twins=2)
    given = rearrange(swapped, "g twins o -> (g twins) o")
    order = torch.rand(len(concepts), generator=rng) < 0.5
    concepts, given = (torch.where(order[:, None], x, x.flip(1)) for x in (concepts, given))
    images = _compose(settings, concepts, given, rng)
    told = torch.rand(len(concepts), generator=rng) < 0.5  # what is said first is not where it is
    captions = [
        " and ".join(phrase(settings, c, a) for c, a in (pairs if first else pairs[::-1]))
        for pairs, first in zip(_pairs(concepts, given), told.tolist(), strict=True)
    ]
    return Twins(images=images, captions=captions, concepts=concepts, attributes=given)


def _pairs(concepts: Tensor, found: Tensor) -> list[list[tuple[int, int]]]:
    return [list(zip(c, a, strict=True)) for c, a in zip(concepts.tolist(), found.tolist(), strict=True)]


def _chosen(
    settings: StickerPairs, count: int, pool: Tensor, rng: torch.Generator, *, held_out: bool
) -> tuple[Tensor, Tensor]:
    """Objects and attributes of each group: two of each, different ones, of the wanted kind."""
    num = len(attributes(settings))
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        places = torch.randint(len(pool), (_TRIES * count, 2), generator=rng)
        drawn = torch.randint(num, (_TRIES * count, 2), generator=rng)
        concepts = pool[places]
        kinds = torch.stack(
            [is_held_out(concepts, drawn).any(1), is_held_out(concepts, drawn.flip(1)).any(1)], 1
        )
        fits = kinds.all(1) if held_out else ~kinds.any(1)
        fits &= (concepts[:, 0] != concepts[:, 1]) & (drawn[:, 0] != drawn[:, 1])
        kept.append(torch.cat([concepts, drawn], 1)[fits])
        if held_out and not len(kept[-1]):  # a small pool may have none
            pool = torch.arange(settings.num_concepts)
    both = torch.cat(kept)[:count]
    return both[:, :2], both[:, 2:]


def _compose(
    settings: StickerPairs, concepts: Tensor, found: Tensor, rng: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Two objects side by side, on plates where the color is the attribute."""
    count = len(concepts)
    canvas = (0.75 + 0.25 * torch.rand(count, 1, 1, 1, generator=rng)).repeat(1, 3, SIZE, SIZE)
    by_color = settings.attribute == "color"
    palette = torch.tensor([COLORS[name] for name in PLATES]) / 255
    for place in range(2):
        numbers = torch.rand(count, 6, generator=rng)
        center = torch.stack(
            [(2 * place - 1) * 0.5 + 0.06 * (numbers[:, 0] - 0.5), 0.7 * (numbers[:, 1] - 0.5)], 1
        )
        scale = 0.34 + 0.06 * numbers[:, 2]
        grid = _grid(center, scale)
        if by_color:
            shift = JITTER * (torch.rand(count, 3, generator=rng) - 0.5)
            color = (palette[found[:, place]] + shift).clamp(0, 1)
            plate = ((grid.abs().amax(-1) < 1.25).float())[:, None]
            canvas = torch.lerp(canvas, rearrange(color, "b c -> b c 1 1").expand_as(canvas), plate)
            styles = (numbers[:, 3] * 2).long()
        else:
            styles = found[:, place]
        sprites = load_sprites()[styles, concepts[:, place]] / 255
        layer = F.grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")
        canvas = canvas * (1 - layer[:, 3:]) + layer[:, :3]
    return canvas.clamp(0, 1) * 2 - 1


def _grid(center: Float[Tensor, "b two"], scale: Float[Tensor, " b"]) -> Float[Tensor, "b h w 2"]:
    """Coordinates of every pixel as seen from an object: -1 to 1 within it."""
    line = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    x = (repeat(line, "w -> b h w", b=len(center), h=SIZE) - center[:, 0, None, None]) / scale[:, None, None]
    y = (repeat(line, "h -> b h w", b=len(center), w=SIZE) - center[:, 1, None, None]) / scale[:, None, None]
    return torch.stack([x, y], -1)

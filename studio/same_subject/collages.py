"""Collages taken apart: where the panels lie, what in a panel is the subject, and a square picture of it.

A panel is as large as its place in the grid says, moved to the strongest straight edge nearby. Its subject is what
differs from the colors along its border; no detector has to be downloaded. Axes: `h w` pixels.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy import ndimage

Pixels = UInt8[np.ndarray, "h w 3"]
REACH = 0.08
"""How far from its place in the grid a border is looked for, as a share of the panel."""
RIM = 0.06
"""Width of the rim that tells a panel's background, as a share of its side."""
COLORS, SHARE = 3, 0.1
"""Most colors that a background may have, such as a gradient or two stripes, and the least share of the rim of each."""
CLEAR = 4.0
"""How many times stronger than the panels' own lines an edge must be to move a border."""


@dataclass(frozen=True)
class Crop:
    """One instance of the subject.

    Attributes:
        picture: Square picture of the panel around it.
        mask: White where the subject is.
        area: Share of the panel that the subject covers.
    """

    picture: Image.Image
    mask: Image.Image
    area: float


def panels(collage: Image.Image, rows: int, columns: int) -> list[Image.Image]:
    """The panels of a collage, row by row."""
    pixels = np.asarray(collage.convert("RGB")).astype(np.float32)
    down = _borders(np.abs(np.diff(pixels, axis=0)).mean(axis=(1, 2)), rows)
    across = _borders(np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2)), columns)
    return [
        collage.convert("RGB").crop((left, top, right, bottom))
        for top, bottom in pairwise(down)
        for left, right in pairwise(across)
    ]


def _borders(strength: Float[np.ndarray, " lines"], parts: int) -> list[int]:
    """Where the parts of an axis begin and end: evenly, or at a clear edge close to that."""
    total = len(strength) + 1
    usual = float(np.median(strength)) + 1e-6
    found = [0]
    for index in range(1, parts):
        place, reach = round(total * index / parts), max(1, round(REACH * total / parts))
        near = strength[place - 1 - reach : place + reach]
        best = int(near.argmax())
        found.append(place - reach + best if near[best] > CLEAR * usual else place)
    return [*found, total]


def subject_of(panel: Image.Image, *, threshold: float) -> Bool[np.ndarray, "h w"]:
    """Where a panel shows something else than its background.

    Args:
        panel: The panel.
        threshold: Distance in color, of 255, from which a pixel is no background.
    """
    pixels = np.asarray(panel.convert("RGB").filter(ImageFilter.MedianFilter(3))).astype(np.float32)
    distance = np.min([np.abs(pixels - color).max(axis=2) for color in _background(pixels)], axis=0)
    solid = ndimage.binary_opening(distance > threshold)
    parts: Any = ndimage.label(solid)
    sizes = np.bincount(parts[0].ravel())[1:]
    kept = np.flatnonzero(sizes >= 0.1 * sizes.max(initial=1)) + 1
    filled: Any = ndimage.binary_fill_holes(np.isin(parts[0], kept))
    return filled


def _background(pixels: Float[np.ndarray, "h w 3"]) -> list[np.ndarray]:
    """The most frequent colors of the rim."""
    height, width = pixels.shape[:2]
    rim = max(1, round(RIM * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[rim : height - rim, rim : width - rim] = True
    colors = pixels[~inside]
    coarse, places = np.unique((colors // 32).astype(np.int64), axis=0, return_inverse=True)
    counts = np.bincount(places.ravel(), minlength=len(coarse))
    first, *others = counts.argsort()[::-1][:COLORS]
    frequent = [first, *(i for i in others if counts[i] >= SHARE * len(colors))]
    return [np.median(colors[places.ravel() == i], axis=0) for i in frequent]


def crop(panel: Image.Image, mask: Bool[np.ndarray, "h w"], side: int, *, margin: float) -> Crop:
    """A square around the subject, padded with the panel's own rim where it reaches beyond.

    Args:
        panel: The panel.
        mask: Where the subject is; not empty.
        side: Pixels of the square's side.
        margin: Room around the subject, as a share of its larger side.
    """
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = (down[0] + down[-1] + 1) / 2, (across[0] + across[-1] + 1) / 2
    half = max(down[-1] - down[0] + 1, across[-1] - across[0] + 1) * (0.5 + margin)
    rows = np.clip(np.arange(np.floor(middle[0] - half), np.ceil(middle[0] + half)), 0, mask.shape[0] - 1)
    columns = np.clip(np.arange(np.floor(middle[1] - half), np.ceil(middle[1] + half)), 0, mask.shape[1] - 1)
    index = np.ix_(rows.astype(int), columns.astype(int))
    picture = Image.fromarray(np.asarray(panel.convert("RGB"))[index])
    inside = _inside(middle, half, mask.shape)
    white = Image.fromarray(np.where(inside, mask[index], False).astype(np.uint8) * 255)  # numpy's
    return Crop(
        picture.resize((side, side), Image.Resampling.LANCZOS),
        white.resize((side, side), Image.Resampling.BILINEAR),
        float(mask.mean()),
    )


def _inside(middle: tuple[float, float], half: float, shape: tuple[int, ...]) -> Bool[np.ndarray, "s s"]:
    """Which pixels of a square lie in the panel."""
    lines = [np.arange(np.floor(m - half), np.ceil(m + half)) for m in middle]
    there = [(line >= 0) & (line < size) for line, size in zip(lines, shape, strict=True)]
    return rearrange(there[0], "h -> h 1") & rearrange(there[1], "w -> 1 w")


def masked(crop_: Crop) -> Image.Image:
    """The subject alone, on gray."""
    return Image.composite(crop_.picture, Image.new("RGB", crop_.picture.size, (127, 127, 127)), crop_.mask)

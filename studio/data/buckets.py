"""Shapes: which width and height a picture is trained at, and which part of it.

Aspect-ratio buckets follow NovelAI ("Improvements on Stable Diffusion", 2022): every shape has at most as many pixels
as the square, its sides are multiples of a step, and a picture goes to the shape nearest in log aspect ratio.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image

MAX_RATIO = 2.0
"""Widest shape (NovelAI: 1024 x 512 at 768 x 512 pixels); wider pictures are cropped to it."""


@dataclass(frozen=True, order=True)
class Shape:
    """Width and height in pixels."""

    width: int
    height: int


@cache
def shapes(resolution: int, step: int) -> tuple[Shape, ...]:
    """The square first, then every shape of about its area within the aspect ratios allowed."""
    found = {Shape(resolution, resolution)}
    area = resolution * resolution
    for short in range(step, resolution + 1, step):
        long = int(area / short) // step * step
        if short <= long <= MAX_RATIO * short:
            found |= {Shape(short, long), Shape(long, short)}
    square = Shape(resolution, resolution)
    return (square, *sorted(found - {square}))


def nearest(width: int, height: int, allowed: Sequence[Shape]) -> Shape:
    """The shape nearest in log aspect ratio; among equals the first one with most pixels."""
    ratio = math.log(width / height)
    return min(
        allowed,
        key=lambda shape: (abs(ratio - math.log(shape.width / shape.height)), -shape.width * shape.height),
    )


def cover_size(width: int, height: int, shape: Shape) -> tuple[int, int]:
    """The smallest size of the same aspect ratio that covers a shape."""
    scale = max(shape.width / width, shape.height / height)
    return max(round(width * scale), shape.width), max(round(height * scale), shape.height)


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at a size, by Lanczos (antialiased)."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class View:
    """Which part of a covering picture is taken: its left top corner, and whether it is mirrored."""

    left: int
    top: int
    flipped: bool


Sizes = tuple[int, int, int, int, int, int]
"""Height and width of the file, top and left of the view, height and width of the view, in pixels."""


def sizes_of(original: tuple[int, int], covering: tuple[int, int], shape: Shape, view: View) -> Sizes:
    """What SDXL is told of a view, as diffusers' scripts tell it (Podell et al. 2023, section 2.2).

    Top and left count in the covering picture; in a mirrored one from its mirrored side, since scripts mirror first.

    Args:
        original: Width and height of the file, upright.
        covering: Width and height that the view is cut from.
        shape: Of the view.
        view: Where it is cut.
    """
    left = covering[0] - view.left - shape.width if view.flipped else view.left
    return original[1], original[0], view.top, left, shape.height, shape.width


def centered(size: tuple[int, int], shape: Shape, *, flipped: bool = False) -> View:
    """The middle of a covering picture."""
    return View((size[0] - shape.width) // 2, (size[1] - shape.height) // 2, flipped)


def numbers(generator: torch.Generator) -> list[float]:
    """The three numbers in [0, 1) that a view takes."""
    return torch.rand(3, generator=generator).tolist()


def draw_view(
    size: tuple[int, int], shape: Shape, crop: str, flip: float, generator: torch.Generator
) -> View:
    """One view of a picture of a size; always takes three numbers from the generator."""
    x, y, mirrored = numbers(generator)
    if crop == "center":
        return centered(size, shape, flipped=mirrored < flip)
    room_x, room_y = size[0] - shape.width, size[1] - shape.height
    left, top = int(x * (room_x + 1)), int(y * (room_y + 1))
    return View(min(left, room_x), min(top, room_y), mirrored < flip)

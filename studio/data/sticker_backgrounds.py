"""Procedural backgrounds, computed for a whole batch at once.

Axes: `n` images of one kind, `c` RGB, `h w` pixels. Colors are in [0, 1]. Every function takes uniform numbers that
were drawn beforehand, so that a background is a pure function of its numbers on any device.
"""

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SIZE = 64
PLAIN_KINDS = ("wood", "grass", "sky", "night sky", "brick", "gravel", "sand", "water")
"""Textures that have one look."""
TWO_COLOR_KINDS = ("checkerboard", "polka dots", "stripes")
"""Patterns of two named colors."""
KINDS = ("solid", "gradient", *PLAIN_KINDS, *TWO_COLOR_KINDS)
NUM_NUMBERS = 8
"""How many uniform numbers a background uses, beside its noise."""

_PHRASES = {
    "wood": "a wooden table",
    "grass": "green grass",
    "sky": "a cloudy blue sky",
    "night sky": "a starry night sky",
    "brick": "a brick wall",
    "gravel": "gravel",
    "sand": "sand",
    "water": "blue water",
}


def phrase(kind: str, first: str, second: str) -> str:
    """What a caption says after "on": "a red background", "green grass", "a red and blue checkerboard"."""
    match kind:
        case "solid":
            return f"a {first} background"
        case "gradient":
            return f"a {first} and {second} gradient"
        case "checkerboard":
            return f"a {first} and {second} checkerboard"
        case "polka dots":
            return f"a {first} background with {second} polka dots"
        case "stripes":
            return f"a {first} and {second} striped background"
        case _:
            return _PHRASES[kind]


def paint(
    kind: str,
    colors: Float[Tensor, "n two c"],
    numbers: Float[Tensor, "n k"],
    noise: Float[Tensor, "n 1 h w"],
    tiles: Float[Tensor, "three s s"],
) -> Float[Tensor, "n c h w"]:
    """Backgrounds of one kind; `tiles` holds the gray photos of brick, grass and gravel."""
    first, second = (rearrange(color, "n c -> n c 1 1") for color in colors.unbind(1))
    match kind:
        case "solid":
            return first.expand(-1, -1, SIZE, SIZE)
        case "gradient":
            return torch.lerp(first, second, _ramp(numbers).clamp(0, 1))
        case "checkerboard" | "polka dots" | "stripes":
            return torch.lerp(first, second, _pattern(kind, numbers))
        case "brick" | "grass" | "gravel":
            return _photo(kind, numbers, tiles)
        case _:
            return _scenery(kind, numbers, noise)


def _axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column positions in pixels, shaped to broadcast over a batch."""
    line = torch.arange(SIZE, device=like.device, dtype=like.dtype)
    return rearrange(line, "h -> 1 1 h 1"), rearrange(line, "w -> 1 1 1 w")


def _column(numbers: Tensor, place: int, low: float, high: float) -> Tensor:
    return rearrange(low + (high - low) * numbers[:, place], "n -> n 1 1 1")


def _ramp(numbers: Tensor) -> Tensor:
    """A linear ramp from 0 to 1 in one of the four axis directions or diagonals."""
    y, x = _axes(numbers)
    angle = torch.floor(_column(numbers, 0, 0, 8)) * math.pi / 4
    along = (x - 31.5) * angle.cos() + (y - 31.5) * angle.sin()
    return along / 64 + 0.5


def _pattern(kind: str, numbers: Tensor) -> Tensor:
    """Where the second color shows, 0 to 1."""
    y, x = _axes(numbers)
    period = torch.floor(_column(numbers, 0, 8, 17))
    shift_y, shift_x = _column(numbers, 1, 0, 16), _column(numbers, 2, 0, 16)
    if kind == "checkerboard":
        return ((torch.floor((y + shift_y) / period) + torch.floor((x + shift_x) / period)) % 2).expand(
            -1, 1, -1, -1
        )
    if kind == "polka dots":
        pitch = period + 2
        radius = ((y + shift_y) % pitch - pitch / 2).square() + ((x + shift_x) % pitch - pitch / 2).square()
        return (pitch * 0.3 - radius.sqrt() + 0.5).clamp(0, 1)
    angle = torch.floor(_column(numbers, 3, 0, 4)) * math.pi / 4
    along = (x + shift_x) * angle.cos() + (y + shift_y) * angle.sin()
    return ((torch.sin(along * math.pi / period * 1.5)) * 4 + 0.5).clamp(0, 1)


def _photo(kind: str, numbers: Tensor, tiles: Tensor) -> Tensor:
    """A random window of a gray photo, tinted."""
    tile = tiles[("brick", "grass", "gravel").index(kind)]
    width = _column(numbers, 0, 0.35, 0.7)
    left, top = ((1 - width) * (2 * numbers[:, i, None, None, None] - 1) for i in (1, 2))
    line = torch.linspace(-1, 1, SIZE, device=numbers.device)
    grid_x = rearrange(line, "w -> 1 1 1 w") * width + left
    grid_y = rearrange(line, "h -> 1 1 h 1") * width + top
    shape = (len(numbers), 1, SIZE, SIZE)
    grid = rearrange([grid_x.expand(shape), grid_y.expand(shape)], "two n 1 h w -> n h w two")
    images = repeat(tile, "h w -> n 1 h w", n=len(numbers))
    gray = F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    gray = gray * _column(numbers, 3, 0.85, 1.15)
    match kind:
        case "brick":
            dark, light = (0.36, 0.10, 0.06), (0.80, 0.42, 0.32)
        case "grass":
            dark, light = (0.05, 0.22, 0.03), (0.50, 0.82, 0.30)
        case _:
            dark, light = (0.15, 0.15, 0.15), (0.80, 0.79, 0.77)
    return torch.lerp(_rgb(dark, gray), _rgb(light, gray), gray).clamp(0, 1)


def _rgb(color: tuple[float, float, float], like: Tensor) -> Tensor:
    return rearrange(torch.tensor(color, device=like.device, dtype=like.dtype), "c -> 1 c 1 1")


def _clouds(noise: Tensor, side: int) -> Tensor:
    """Smooth noise with features of `64 / side` pixels."""
    return F.interpolate(noise[..., :side, :side], (SIZE, SIZE), mode="bilinear", align_corners=True)


def _scenery(kind: str, numbers: Tensor, noise: Tensor) -> Tensor:
    y, x = _axes(numbers)
    down = y / SIZE
    match kind:
        case "sky":
            base = torch.lerp(_rgb((0.30, 0.56, 0.88), noise), _rgb((0.68, 0.86, 0.98), noise), down)
            puffs = 0.6 * _clouds(noise, 5) + 0.4 * _clouds(noise.flip(-1), 11)
            return torch.lerp(base, torch.ones_like(base), ((puffs - 0.5) * 4).clamp(0, 0.95))
        case "night sky":
            base = torch.lerp(_rgb((0.02, 0.02, 0.12), noise), _rgb((0.16, 0.14, 0.32), noise), down)
            stars = ((noise - 0.985) * 80).clamp(0, 1)
            return torch.lerp(base, torch.ones_like(base), stars)
        case "sand":
            grain = 0.75 * _clouds(noise, 9) + 0.25 * noise
            return torch.lerp(_rgb((0.76, 0.62, 0.38), noise), _rgb((0.95, 0.85, 0.62), noise), grain)
        case "water":
            bend = 3 * _clouds(noise, 6)
            waves = torch.sin(
                y * _column(numbers, 0, 0.6, 0.9) + 6 * torch.sin(x * 0.09 + bend) * 0.35 + bend * 2
            )
            return torch.lerp(
                _rgb((0.10, 0.36, 0.70), noise), _rgb((0.42, 0.72, 0.95), noise), 0.5 + 0.5 * waves
            )
        case "wood":
            board = torch.floor((y + _column(numbers, 0, 0, 16)) / _column(numbers, 1, 9, 16))
            tone = (torch.sin(board * 12.9 + _column(numbers, 2, 0, 6)) * 43.7) % 1
            grain = torch.sin(y * 1.7 + 5 * _clouds(noise, 5) + x * 0.04 + board * 2.3)
            gap = ((y + _column(numbers, 0, 0, 16)) % _column(numbers, 1, 9, 16) < 1).to(noise)
            light = (0.45 + 0.35 * tone + 0.15 * grain) * (1 - 0.7 * gap)
            return torch.lerp(_rgb((0.34, 0.19, 0.09), noise), _rgb((0.80, 0.55, 0.33), noise), light)
        case _:
            raise ValueError(f"unknown background {kind}")

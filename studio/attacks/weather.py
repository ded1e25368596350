"""Blurs and weather of ImageNet-C and CIFAR-10-C; `corruptions` is the entry.

Departure: `frost` lays a drawn pattern of veins over the picture instead of one of six photographs, which have no
known license; it is matched to their mean colors and contrast.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Picture = Float[np.ndarray, "h w 3"]
Values = Any
Layer = Float[np.ndarray, "h w"]

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255
FROST_TINTS = np.array(
    [[0.30, 0.58, 0.65], [0.79, 0.81, 0.84], [0.54, 0.60, 0.65], [0.44, 0.48, 0.53], [0.28, 0.37, 0.41]]
)
"""Mean colors of the benchmark's frost photographs."""
FROST_CONTRAST = 0.12
"""Mean standard deviation of their channels."""


def gaussian_blur(image: Picture, sd: Values, generator: np.random.Generator) -> Picture:
    """Blurred by a Gaussian."""
    del generator
    return ndimage.gaussian_filter(image, (sd, sd, 0))


def defocus_blur(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Blurred by a disk with soft edges."""
    del generator
    radius, softness = values
    reach = 8 if radius <= 8 else int(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(float)
    width = 1 if radius <= 8 else 2  # half of OpenCV's 3 x 3 and 5 x 5 kernels
    disk = ndimage.gaussian_filter(disk / disk.sum(), softness, radius=width)
    return np.stack([ndimage.correlate(image[..., c], disk, mode="mirror") for c in range(3)], 2)


def glass_blur(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Blurred, neighboring pixels swapped, blurred again."""
    sd, reach, rounds = values
    image = np.floor(ndimage.gaussian_filter(image, (sd, sd, 0)) * 255) / 255
    height, width = image.shape[:2]
    order = np.arange(height * width).reshape(height, width).tolist()
    for _ in range(rounds):
        jumps = iter(generator.integers(-reach, reach, (height * width, 2)).tolist())
        for row in range(height - reach - 1, reach, -1):
            for column in range(width - reach - 1, reach, -1):
                down, right = next(jumps)
                here, there = order[row], order[row + down]
                here[column], there[column + right] = there[column + right], here[column]
    shuffled = image.reshape(-1, 3)[np.array(order)]
    return ndimage.gaussian_filter(shuffled, (sd, sd, 0))


def motion_blur(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Smeared along a random direction within 45 degrees of the horizontal."""
    radius, sd = values
    return _smear(image, radius, sd, generator.uniform(-45, 45))


def zoom_blur(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """The mean of ever larger pictures."""
    del generator
    stop, step = values
    zooms = np.arange(1, stop, step)
    return (image + sum(_zoom(image, zoom) for zoom in zooms)) / (len(zooms) + 1)


def fog(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """A plasma fractal of haze, scaled back to the picture's own brightest value."""
    amount, decay = values
    height, width = image.shape[:2]
    haze = plasma(max(height, width), decay, generator)[:height, :width]
    top = image.max()
    return (image + amount * haze[..., None]) * top / (top + amount)


def frost(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Veins of ice over the picture."""
    keep, amount = values
    height, width = image.shape[:2]
    ridges = 1 - np.abs(2 * plasma(max(height, width), 2, generator)[:height, :width] - 1)
    ridges = (ridges - ridges.mean()) / max(ridges.std(), 1e-6)
    ice = FROST_TINTS[generator.integers(len(FROST_TINTS))] + FROST_CONTRAST * ridges[..., None]
    return keep * image + amount * np.clip(ice, 0, 1)


def snow(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Flakes smeared by the wind, over a whiter picture."""
    mean, sd, zoom, threshold, radius, smear, keep = values
    flakes = _zoom(generator.normal(mean, sd, image.shape[:2])[..., None], zoom)[..., 0]
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _smear(flakes[..., None], radius, smear, generator.uniform(-135, -45))
    flakes = np.round(flakes * 255) / 255
    gray = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    image = keep * image + (1 - keep) * np.maximum(image, gray * 1.5 + 0.5)
    return image + flakes + np.rot90(flakes, 2)


def spatter(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Drops of water or of mud.

    Departure: water's edges come from the distance to the drop's border, not from OpenCV's Canny edges.
    """
    mean, sd, smooth, threshold, strength, is_mud = values
    liquid = ndimage.gaussian_filter(generator.normal(mean, sd, image.shape[:2]), smooth)
    drops = np.where(liquid < threshold, 0, liquid)
    if is_mud:
        cover = ndimage.gaussian_filter((drops > threshold).astype(float), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return image * (1 - cover) + MUD * cover
    inside = ndimage.distance_transform_edt(drops > 0)
    rim = drops * np.exp(-np.asarray(inside) / 2)
    cover = ndimage.uniform_filter(rim, 3)
    return image + strength * WATER * ((cover / max(cover.max(), 1e-6)) ** 3)[..., None]


def plasma(side: int, decay: float, generator: np.random.Generator) -> Layer:
    """A cloudy height map in [0, 1] by the diamond-square algorithm; the side is rounded up to a power of two."""
    side = 1 << (side - 1).bit_length()
    heights = np.zeros((side, side))
    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2
        corner = heights[0:side:step, 0:side:step]
        around = corner + np.roll(corner, -1, 0)
        around = around + np.roll(around, -1, 1)
        heights[half:side:step, half:side:step] = _wobbled(around, wobble, generator)
        middle = heights[half:side:step, half:side:step]
        vertical = middle + np.roll(middle, 1, 0) + corner + np.roll(corner, -1, 1)
        heights[0:side:step, half:side:step] = _wobbled(vertical, wobble, generator)
        horizontal = middle + np.roll(middle, 1, 1) + corner + np.roll(corner, -1, 0)
        heights[half:side:step, 0:side:step] = _wobbled(horizontal, wobble, generator)
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / heights.max()


def _wobbled(total: Layer, wobble: float, generator: np.random.Generator) -> Layer:
    return total / 4 + wobble * generator.uniform(-wobble, wobble, total.shape)


def _zoom(image: Float[np.ndarray, "h w c"], factor: float) -> Float[np.ndarray, "h w c"]:
    """The middle of a picture, enlarged to its size."""
    height, width = image.shape[:2]
    rows, columns = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = image[top : top + rows, left : left + columns]
    return np.asarray(ndimage.zoom(part, (factor, factor, 1), order=1))[:height, :width]


def _smear(
    image: Float[np.ndarray, "h w c"], radius: int, sd: float, degrees: float
) -> Float[np.ndarray, "h w c"]:
    """A one-sided Gaussian along a line, edges repeated (ImageMagick's motion blur)."""
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sd**2))
    down, right = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    height, length = image.shape[:2]
    result = np.zeros_like(image)
    for index, weight in enumerate(weights / weights.sum()):
        rows = np.clip(np.arange(height) + int(np.ceil(index * down - 0.5)), 0, height - 1)
        columns = np.clip(np.arange(length) + int(np.ceil(index * right - 0.5)), 0, length - 1)
        result += weight * image[rows][:, columns]
    return result

"""Common corruptions after ImageNet-C and CIFAR-10-C: the entry, and the noise and digital ones.

    Hendrycks, Dietterich, 2019, arXiv 1903.12261

Each takes a picture (h, w, 3) in [0, 1], the values of its severity and a generator. The recipe is the benchmarks'
own; said where it is not. Corrupting on the fly lacks the JPEG step of the published files: say which one was used.
"""

import zlib
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from studio.attacks import weather
from studio.attacks.constants import CIFAR, IMAGENET, LARGE_FROM
from studio.attacks.weather import Picture, Values

SEVERITIES = (1, 2, 3, 4, 5)
LUMA = (0.299, 0.587, 0.114)


def corrupt(
    image: UInt8[np.ndarray, "h w 3"], name: str, severity: int, *, identity: int
) -> UInt8[np.ndarray, "h w 3"]:
    """One picture under one corruption; the random numbers depend on (identity, name, severity) and on nothing else.

    Args:
        image: RGB, 0 to 255.
        name: One of `constants.BENCHMARK` or `constants.EXTRA`.
        severity: 1 (mild) to 5.
        identity: What this picture is known by, such as its place in the data.
    """
    table = IMAGENET if min(image.shape[:2]) >= LARGE_FROM else CIFAR
    generator = np.random.default_rng([identity, zlib.crc32(name.encode()), severity])
    result = FUNCTIONS[name](image / 255.0, table[name][severity - 1], generator)
    return np.round(np.clip(result, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(image: Picture, sd: Values, generator: np.random.Generator) -> Picture:
    """Electronic noise."""
    return image + generator.normal(scale=sd, size=image.shape)


def shot_noise(image: Picture, rate: Values, generator: np.random.Generator) -> Picture:
    """Photon noise."""
    return generator.poisson(image * rate) / rate


def impulse_noise(image: Picture, amount: Values, generator: np.random.Generator) -> Picture:
    """Salt and pepper, on each channel by itself as scikit-image does."""
    hit, salt = generator.random(image.shape) < amount, generator.random(image.shape) < 0.5
    return np.where(hit, salt, image)


def speckle_noise(image: Picture, sd: Values, generator: np.random.Generator) -> Picture:
    """Noise that grows with the brightness."""
    return image + image * generator.normal(scale=sd, size=image.shape)


def brightness(image: Picture, amount: Values, generator: np.random.Generator) -> Picture:
    """More value in HSV: with hue and saturation kept, RGB is scaled."""
    del generator
    value = image.max(2, keepdims=True)
    brighter = np.clip(value + amount, 0, 1)
    return np.where(value > 0, image * brighter / np.maximum(value, 1e-9), brighter)


def saturate(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """Saturation in HSV times a factor, plus an amount; gray pixels have hue 0 and so turn red, as in the benchmark."""
    del generator
    factor, amount = values
    value = image.max(2, keepdims=True)
    saturation = (value - image.min(2, keepdims=True)) / np.maximum(value, 1e-9)
    wanted = np.clip(saturation * factor + amount, 0, 1)
    colored = value - (value - image) * wanted / np.maximum(saturation, 1e-9)
    return np.where(saturation > 0, colored, value * (1 - wanted * np.array([0.0, 1.0, 1.0])))


def contrast(image: Picture, factor: Values, generator: np.random.Generator) -> Picture:
    """Nearer to the mean color."""
    del generator
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def jpeg_compression(image: Picture, quality: Values, generator: np.random.Generator) -> Picture:
    """Stored as JPEG."""
    del generator
    stored = BytesIO()
    _to_pil(image).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored)) / 255.0


def pixelate(image: Picture, scale: Values, generator: np.random.Generator) -> Picture:
    """Made smaller, then larger by repeating pixels."""
    del generator
    height, width = image.shape[:2]
    small = _to_pil(image).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST)) / 255.0


def elastic_transform(image: Picture, values: Values, generator: np.random.Generator) -> Picture:
    """A random affine map and a smooth random displacement; lengths are parts of the picture's side."""
    height, width = image.shape[:2]
    strength, smoothness, jitter = np.array(values) * min(height, width)
    image = _affine(image, jitter, generator)
    offsets = generator.uniform(-1, 1, (2, height, width))
    if strength:
        offsets = ndimage.gaussian_filter(offsets, (0, smoothness, smoothness), truncate=3) * strength
    places = np.indices((height, width)) + offsets * bool(strength)
    return _resample(image, places)


def _affine(image: Picture, jitter: float, generator: np.random.Generator) -> Picture:
    """Moves three corners by up to `jitter` pixels; the inverse map is estimated from them."""
    side = min(image.shape[:2])
    center, reach = side // 2, side // 3
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * reach + center
    moved = corners + generator.uniform(-jitter, jitter, corners.shape)
    ones = np.ones((3, 1))
    matrix = np.linalg.solve(np.hstack([moved, ones]), corners)
    grid = np.stack([*np.indices(image.shape[:2]), np.ones(image.shape[:2])])
    return _resample(image, np.einsum("khw,kd->dhw", grid, matrix))


def _resample(image: Picture, places: Float[np.ndarray, "2 h w"]) -> Picture:
    channels = [ndimage.map_coordinates(image[..., c], places, order=1, mode="mirror") for c in range(3)]
    return np.stack(channels, 2)


def _to_pil(image: Picture) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8))


FUNCTIONS: dict[str, Callable[[Picture, Values, np.random.Generator], Picture]] = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise),
        *(
            weather.defocus_blur,
            weather.glass_blur,
            weather.motion_blur,
            weather.zoom_blur,
            weather.gaussian_blur,
        ),
        *(weather.snow, weather.frost, weather.fog, weather.spatter),
        *(brightness, contrast, saturate, elastic_transform, pixelate, jpeg_compression),
    )
}
"""All 19 corruptions by name."""


def corrupt_all(
    images: UInt8[np.ndarray, "b h w 3"], name: str, severity: int, identities: Sequence[int]
) -> UInt8[np.ndarray, "b h w 3"]:
    """Several pictures under one corruption."""
    return np.stack([corrupt(i, name, severity, identity=k) for i, k in zip(images, identities, strict=True)])

"""Reading one picture: any common file becomes RGB, upright, with its mask; anything else one clear sentence."""

import functools
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from studio.errors import StudioError

log = logging.getLogger(__name__)
MAX_PIXELS = 2 * (1 << 28) // 3
"""Most pixels of a file: twice Pillow's warning level, where Pillow itself suspects a decompression bomb."""
MAX_UPSCALE = 8
"""A picture that would be enlarged more than this is refused: hardly any of its pixels would be its own."""
DRAFT = 2
"""JPEGs are decoded at the smallest scale that still is this many times the size needed (libjpeg's scaled DCT)."""
ROUNDED = 3
"""Levels by which a color may differ from sRGB and be the same: profiles of sRGB are rounded."""
WHITE = (255, 255, 255, 255)

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files."""


class BadImageError(StudioError):
    """A picture that cannot be used. `path` and `reason` say which and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        advice = "replace or remove it, or set on_bad to 'skip'"
        super().__init__(f"Cannot use picture {str(path)!r}: it {reason}; {advice}.", field="on_bad")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Picture:
    """An upright RGB picture and its mask (mode L, 255 = counts; None if the file has none)."""

    rgb: Image.Image
    mask: Image.Image | None
    size: tuple[int, int]
    """Width and height of the upright file; `rgb` may be smaller when it was drafted."""


def read(path: Path | str, *, needed: int = 0, content: bytes | None = None) -> Picture:
    """Decode a picture: first frame, upright, in sRGB by its color profile, transparency over white and kept as mask.

    Args:
        path: The file; only a name if `content` is given.
        needed: Side that will be needed; JPEGs much larger are decoded at a fraction of their size. 0 decodes all.
        content: The bytes of the file, when they are at hand.

    Raises:
        BadImageError: If the file is missing, no picture, damaged, or too large.
    """
    with _opened(path, content) as image:
        upright = _upright_size(image)
        if needed and image.format == "JPEG" and min(image.size) > DRAFT * needed:
            ratio = DRAFT * needed / min(image.size)
            image.draft(None, (int(image.width * ratio), int(image.height * ratio)))
        image.load()
        turned = ImageOps.exif_transpose(image)
        rgb, mask = _flatten(_in_srgb(turned), path)
    return Picture(rgb, mask, upright)


def size(path: Path | str) -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone.

    Raises:
        BadImageError: If the file is missing, no picture, or too large.
    """
    with _opened(path, None) as image:
        return _upright_size(image)


def read_mask(path: Path) -> Image.Image:
    """A mask file as mode L: white, or opaque where it has transparency, counts.

    Raises:
        BadImageError: As `read`.
    """
    picture = read(path)
    return picture.mask if picture.mask is not None else picture.rgb.convert("L")


@contextmanager
def _opened(path: Path | str, content: bytes | None) -> Iterator[Image.Image]:
    """An open image; what goes wrong inside the block is said in one sentence that names the file."""
    try:
        if content is None and Path(path).stat().st_size == 0:
            raise BadImageError(path, "is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path if content is None else io.BytesIO(content))
        with image:
            yield image
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError(path, "does not exist") from error
    except Image.DecompressionBombError as error:
        reason = f"has more than {MAX_PIXELS // 10**6} million pixels; scale it down"
        raise BadImageError(path, reason) from error
    except UnidentifiedImageError as error:
        raise BadImageError(path, _what_instead(path)) from error
    except _BROKEN as error:
        raise BadImageError(path, f"is damaged ({error})") from error


def _what_instead(path: Path | str) -> str:
    """Why a file may not be a picture that can be read."""
    if str(path).lower().endswith((".heic", ".heif")):
        return "is in HEIC format; convert it to JPEG or PNG"
    return "is not a picture, whatever its name says"


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation; 5 to 8 turn by a quarter (EXIF 2.3, tag 0x112)."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x112, 1) in (5, 6, 7, 8) else (width, height)


def _in_srgb(image: Image.Image) -> Image.Image:
    """A picture in sRGB, by the color profile that its file brings (Display P3, Adobe RGB, CMYK); one without is as it is."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        if image.mode != "CMYK" and not _differs(profile, image.mode):
            return image
        return _turned(image, profile)
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("a color profile cannot be used (%s); the picture is read as sRGB", error)
        return image


def _turned(image: Image.Image, profile: bytes) -> Image.Image:
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    turned = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    return image if turned is None else turned


@functools.lru_cache(maxsize=64)
def _differs(profile: bytes, mode: str) -> bool:
    """Whether a profile is another than sRGB, seen by what it makes of colors, not by its name."""
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    colors = Image.fromarray(np.ascontiguousarray(levels)).convert(mode)
    before, after = (np.asarray(c.convert("RGB"), np.int16) for c in (colors, _turned(colors, profile)))
    return int(np.abs(before - after).max()) > ROUNDED


def _flatten(image: Image.Image, path: Path | str) -> tuple[Image.Image, Image.Image | None]:
    """RGB over white, and the alpha channel if any pixel is transparent."""
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB"), None
    if image.mode == "F":
        raise BadImageError(
            path, "has floating-point pixels, whose range is unknown; save it with 8 or 16 bits"
        )
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    over = Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba).convert("RGB")
    return over, alpha if np.asarray(alpha).min() < 255 else None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Sixteen bits of gray as eight, rounded (Pillow's own conversion would clip)."""
    gray = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.clip(np.round(gray / 257), 0, 255).astype(np.uint8))

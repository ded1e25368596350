"""What training sees of a folder: each picture cut to the bucket that is nearest to its shape."""

from pathlib import Path
from typing import Any

from studio.data import buckets, images, layouts
from studio.data.check import check
from studio.data.config import Images

SHOWN = 12
_STEPS = 8
"""Bucket sides are multiples of the eighth part of the resolution."""


def look(folder: str | Path, resolution: int, target: Path) -> dict[str, Any]:
    """What the checks find in a folder, and its first pictures as they are cropped; see `crops`."""
    report = check(folder, Images(), size=resolution)
    return {**report.to_dict(), "crops": [str(path) for path in crops(folder, resolution, target)]}


def crops(folder: str | Path, resolution: int, target: Path) -> list[Path]:
    """Write the first pictures as they are cropped; those that cannot be read are left out.

    Args:
        folder: Where the pictures are.
        resolution: Side of the square in pixels.
        target: Folder for the crops, named by bucket and picture.
    """
    allowed = buckets.shapes(resolution, max(resolution // _STEPS, 1))
    written: list[Path] = []
    for record in layouts.find(folder, "auto").records[:SHOWN]:
        try:
            picture = images.read(record.path, needed=resolution).rgb
        except images.BadImageError:
            continue
        shape = buckets.nearest(*picture.size, allowed)
        covering = buckets.cover(picture, buckets.cover_size(*picture.size, shape))
        left, top = (covering.width - shape.width) // 2, (covering.height - shape.height) // 2
        cut = covering.crop((left, top, left + shape.width, top + shape.height))
        written.append(target / f"{shape.width}x{shape.height}_{record.path.stem}.webp")
        cut.save(written[-1], quality=85)
    return written

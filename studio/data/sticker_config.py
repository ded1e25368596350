"""Settings of the sticker scenes."""

from typing import Annotated, Literal

from pydantic import Field

from studio.settings.config import config

Share = Annotated[float, Field(ge=0, le=1)]


@config
class Stickers:
    """Scenes of one sticker on one background, composed on the fly."""

    num_concepts: Annotated[int, Field(ge=1, le=351)] = 40
    """How many of the concepts occur; the most nameable come first."""
    styles: tuple[str, ...] = ("3d", "flat")
    """Which drawing styles occur: 3d, flat, cartoon, glossy."""
    textured: Share = 0.25
    """Share of scenes on a texture or a pattern."""
    gradient: Share = 0.1
    """Share of scenes on a two-color gradient; the rest is on one color."""
    centered: Share = 0.9
    """Share of scenes whose object is large and near the middle; the others are small or in a corner."""
    scale: tuple[float, float] = (0.7, 0.86)
    """Smallest and largest width of a centered object, as a share of the image."""
    rotated: Share = 0.0
    """Share of objects rotated by up to 25 degrees."""
    mirrored: Share = 0.0
    """Share of objects seen from the other side."""
    color_jitter: Share = 0.06
    """Width of the band around a named color."""
    group_captions: Share = 0.15
    """Share of captions that say only the group, such as "an animal"."""


@config
class StickerPairs:
    """Scenes of two objects that differ in one attribute, each with a twin in which the attributes are swapped."""

    num_concepts: Annotated[int, Field(ge=4, le=351)] = 40
    """How many of the concepts occur; the most nameable come first."""
    attribute: Literal["color", "style"] = "color"
    """What each object has: the color of the plate behind it, or its drawing style."""
    num_colors: Annotated[int, Field(ge=3, le=9)] = 6
    """How many plate colors occur, the most different ones first."""
    pool: Annotated[int, Field(ge=2, le=40)] = 4
    """Objects that share a batch; few make captions of a batch share words, which makes negatives hard."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.pool > self.num_concepts:
            raise ValueError(f"pool {self.pool} is more than the {self.num_concepts} concepts; choose fewer")

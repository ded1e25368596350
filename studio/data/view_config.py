"""Settings of condition views: what a method sees of an object that it learns to draw again. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from studio.data.config import Images
from studio.data.sticker_config import Stickers
from studio.errors import StudioError
from studio.records import places
from studio.settings.config import Fraction, config

STICKERS = "stickers"
"""What `data` says for the embedded stickers in place of a folder."""


@config
class Views:
    """How pictures and the views of their objects are made: cut out by the mask, cropped, augmented strongly."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest rotation, in degrees."""
    scale: tuple[Fraction, Fraction] = (0.65, 1.0)
    """Smallest and largest side of the object, as a share of the view."""
    flip: Fraction = 0.5
    """Share of views mirrored."""
    background: Fraction = 0.0
    """Share of views with a background that is not the picture's own (ours; 0 leaves nothing behind, as the paper)."""
    mask: Literal["given", "none"] = "given"
    """given: alpha, NAME-masklabel.png or masks/NAME.png; none: the whole picture is the view, background and all."""
    area: tuple[Fraction, Fraction] = (0.1, 0.7)
    """Smallest and largest share of a picture that its object may cover; others are left out (InstantBooth)."""
    images: Images = Images()
    """How the pictures of a folder are read."""
    scenes: Stickers = Stickers(
        num_concepts=351, styles=("3d", "flat", "cartoon", "glossy"), mirrored=0.5, group_captions=1.0
    )
    """What sticker scenes show. Captions that say only the group leave everything else to the view."""
    hue: Fraction = 0.7
    """Share of stickers with their hues turned, so that colors must be read from the view."""

    def __post_init__(self) -> None:
        """Refuse an empty range, and cached latents, which leave no picture to take a view of.

        Raises:
            StudioError: Names the setting.
        """
        for name, (low, high) in (("scale", self.scale), ("area", self.area)):
            if not low <= high or (name == "scale" and low == 0):
                raise StudioError(
                    f"{name} {(low, high)} is not a range; give two shares with first <= second.", field=name
                )
        if self.images.cache != "none":
            raise StudioError(
                f"images.cache {self.images.cache!r} would leave no pictures to take views of; set it to none.",
                field="images.cache",
            )


def check_data(data: str) -> None:
    """Refuse a folder that is not there.

    Raises:
        StudioError: Says what is allowed.
    """
    if data != STICKERS:
        places.folder(data, "data", "a folder of pictures with captions and masks, or stickers")

"""Settings of same-subject sets: several pictures of one subject, each with its caption. No torch."""

from typing import Annotated

from pydantic import Field

from studio.data.sticker_config import Stickers
from studio.records import places
from studio.settings.config import Fraction, Positive, config


@config
class StickerSets:
    """Sets made from the embedded stickers: one sticker in several scenes, composed anew in every step."""

    scenes: Stickers = Stickers(
        num_concepts=351, styles=("3d", "flat", "cartoon", "glossy"), group_captions=0.6
    )
    """What the scenes show. Captions that say only the group leave everything else to the references."""
    hue: Fraction = 0.7
    """Share of sets whose sticker has its hues turned, so that 1,404 stickers become many subjects."""
    mirror: Fraction = 0.5
    """Share of sets whose sticker is mirrored."""
    stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Largest change of a set's width against its height."""
    turn: Annotated[float, Field(ge=0, le=180)] = 12.0
    """Largest rotation of a member, in degrees."""
    other_style: Fraction = 0.1
    """Share of sets whose members are the same emoji in different drawing styles: harder."""


@config
class SetFolder:
    """Your own sets: a folder of folders, each with pictures of one subject and captions as for any training."""

    folder: Annotated[str, Field(min_length=1)]
    """Folder of sets, such as sets/rex/1.jpg with sets/rex/1.txt beside it."""
    caption: str = "a photo of {class}"
    """Caption of pictures that have none; {class} is the set's name without its number."""
    flip: Fraction = 0.0
    """Share of sets that are mirrored."""


SetData = StickerSets | SetFolder
SetSizes = Annotated[tuple[Positive, ...], Field(min_length=1)]


def check_sets(data: SetData) -> None:
    """Refuse a folder that is not there.

    Raises:
        StudioError: Names the setting.
    """
    if isinstance(data, SetFolder):
        places.folder(data.folder, "data.folder", "a folder with one folder a subject")

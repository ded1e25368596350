"""What a request's reference pictures must be: refused before a model is loaded, in the app before a job starts. No torch."""

from collections.abc import Sequence

from PIL import Image

from studio.catalog import families, methods
from studio.catalog.recognize import recognize
from studio.data import images
from studio.data.images import BadImageError
from studio.errors import StudioError
from studio.records import trained
from studio.settings.sampling import SampleRequest

SIDE = 1024
"""Pixels of the shorter side that any method needs: larger JPEGs are decoded at a fraction of their size."""


def check(request: SampleRequest) -> None:
    """Refuse references that are missing, or that nothing would look at.

    Raises:
        StudioError: Says which.
    """
    found = [own for path in request.artifact if (own := trained.find(path)) is not None]
    needing = [own for own in found if methods.card(own.method).needs_references]
    if needing and not request.reference:
        raise missing(needing[0].method)
    looks = needing or request.edits or _family_looks(request.model or next((own.model for own in found), ""))
    if request.reference and not looks:
        raise StudioError(
            "Neither the model nor an artifact of this request looks at reference pictures; leave --reference out, or "
            f"add an artifact that does (embedded: {', '.join(trained.shipped()) or 'none'}; by themselves {_looking()} do).",
            field="reference",
        )


def _family_looks(model: str) -> bool:
    """Whether a model looks at pictures by itself; a file or repository that we do not know is asked once loaded."""
    known = recognize(model)
    return known.card.references > 0 if known.card else "/" in model


def _looking() -> str:
    """Models that look at references without an artifact."""
    return " and ".join(card.title for card in families.cards().values() if card.references)


def missing(method: str) -> StudioError:
    """What to say when a method has no picture to look at."""
    return StudioError(
        f"There is no reference picture, and {method} draws what references show; give at least one with "
        "--reference FILE.",
        field="reference",
    )


def read(paths: Sequence[str]) -> list[Image.Image]:
    """Upright RGB pictures, transparency over white.

    Raises:
        StudioError: One cannot be read.
    """
    return [_read(path) for path in paths]


def _read(path: str) -> Image.Image:
    try:
        return images.read(path, needed=SIDE).rgb
    except BadImageError as error:
        raise StudioError(
            f"Cannot use reference {path!r}: it {error.reason}; give another picture.", field="reference"
        ) from None

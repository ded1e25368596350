"""Pictures with captions: what methods that read or write captions ask of their sources."""

from collections.abc import Iterator

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.data.build import images
from studio.data.config import Images
from studio.data.source import Photos
from studio.errors import StudioError


class Numbered:
    """A source whose batches also hold `seeds`: a number for each row, a function of (seed, step, row)."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of the source, numbered."""
        for step, batch in enumerate(self._source.stream(seed, first, shard), first):
            yield {**batch, "seeds": [mix(seed, step, row) for row in range(shard.start, shard.stop)]}


def pictures(settings: Images, folder: str, *, size: int, captioned: bool) -> Photos:
    """The pictures of a folder.

    Args:
        settings: How they become examples.
        folder: Where they are.
        size: The model's own side in pixels.
        captioned: Whether each needs a caption.

    Raises:
        StudioError: One has none, or latents are asked for.
    """
    if settings.latents != "sample":
        raise StudioError(
            f"images.latents {settings.latents!r} is for models with an autoencoder, of which there is none here; leave it out.",
            field="images.latents",
        )
    found = images(settings, folder, size=size, multiple=1)
    if not isinstance(found, Photos):
        raise StudioError(
            "images.cache keeps latents, which are of no use here; set it to none.", field="images.cache"
        )
    bare = [example.record.path for example in found.examples if not example.caption]
    if captioned and bare:
        raise StudioError(
            f"{len(bare)} of {len(found)} pictures have no caption, first {bare[0]}; write them beside the pictures as "
            "NAME.txt, such as with `studio data caption`.",
            field="data",
        )
    return found

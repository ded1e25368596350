"""A folder of captioned pictures with the mask of an object each, as pictures and views of their objects.

Axes: `b` pictures, `k` views of each, `h w` pixels, `s` side of a view.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.data.build import images
from studio.data.source import Example, Photos
from studio.data.sticker_views import StickerViews, named, names, views_of
from studio.data.view_config import STICKERS, Views
from studio.data.views import NUMBERS, cut_out, fill, see
from studio.errors import StudioError

logger = logging.getLogger(__name__)


class MaskedPhotos:
    """Batches of `images`, `captions`, `rows` and `views` (b k 3 s s in [-1, 1])."""

    def __init__(self, photos: Photos, settings: Views, wanted: "Wanted") -> None:
        """Take pictures that can be used.

        Args:
            photos: Pictures with their masks on.
            settings: How views are made.
            wanted: What the method wants of them.
        """
        self.photos, self.facts = photos, photos.facts
        self._settings, self._wanted = settings, wanted

    def __len__(self) -> int:
        return len(self.photos)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of the steps `first`, `first + 1`, ...; a row's views follow from its number."""
        wanted = self._wanted
        for step, batch in enumerate(self.photos.stream(seed, first, shard), start=first):
            masks = batch.pop("loss_mask")
            if self._settings.mask == "none":
                masks = torch.ones_like(masks)
            count = views_of(wanted.num_views, seed, step)
            numbers = torch.stack([_numbers(seed, int(row), count) for row in batch["rows"]], dim=1)
            cutouts = cut_out(batch["images"], masks)
            batch["views"] = torch.stack([self._view(cutouts, u) for u in numbers], dim=1)
            if wanted.placeholder:
                batch["captions"] = [named(c, wanted.nouns, wanted.placeholder) for c in batch["captions"]]
            yield batch

    def _view(self, cutouts: Tensor, numbers: Tensor) -> Float[Tensor, "b 3 s s"]:
        """A view of each object, some on a plain color."""
        views = see(cutouts, self._settings, numbers, self._wanted.size)
        behind = 2 * numbers[:, NUMBERS:, None, None] - 1
        return fill(views, behind.expand(-1, -1, *views.shape[-2:]), self._settings, numbers)


def _numbers(seed: int, row: int, count: int) -> Float[Tensor, "k n"]:
    return torch.rand(count, NUMBERS + 3, generator=torch.Generator().manual_seed(mix(seed, row, NUMBERS)))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a method wants of its data.

    Attributes:
        size: Side of a view, in pixels.
        resolution, multiple: The model's own resolution, and what a side must be a multiple of.
        placeholder: Word in front of the object's noun in captions; empty for none.
        nouns: Words for the object in captions of a folder; the placeholder is put in front of the first one found.
        num_views: A step has 1 to so many views of each object.
    """

    size: int
    resolution: int
    multiple: int
    placeholder: str = ""
    nouns: Sequence[str] = ()
    num_views: int = 1


def view_source(data: str, settings: Views, wanted: Wanted, *, held_out: bool = False) -> Source:
    """Pictures with views of their objects: composed stickers, or a folder.

    Raises:
        StudioError: A picture cannot be used, or none is left.
    """
    if data == STICKERS:
        return StickerViews(
            settings,
            wanted.size,
            placeholder=wanted.placeholder,
            held_out=held_out,
            num_views=wanted.num_views,
        )
    photos = images(settings.images, data, size=wanted.resolution, multiple=wanted.multiple)
    if not isinstance(photos, Photos):
        raise ValueError("views are taken of pictures, not of cached latents")  # noqa: TRY004  # Views refuses the setting
    reason = partial(_reason, photos=photos, settings=settings, wanted=wanted)
    rejects = {example: said for example in photos.examples if (said := reason(example))}
    facts = [f"left out {example.record.path}: {said}" for example, said in rejects.items()]
    for fact in facts:
        logger.warning(fact)
    kept = [example for example in photos.examples if example not in rejects]
    if not kept:
        raise StudioError(
            f"None of the {len(photos)} pictures in {data} can be used; the first: {next(iter(facts))}. Masks are found "
            "in alpha, NAME-masklabel.png or masks/NAME.png; without any, ask for whole pictures with --views.mask none.",
            field="data",
        )
    with_masks = dataclasses.replace(settings.images, masks=True)
    left = Photos(with_masks, kept, photos.decoder, [*photos.facts, *facts])
    return MaskedPhotos(left, settings, wanted)


def _reason(example: Example, *, photos: Photos, settings: Views, wanted: Wanted) -> str:
    """Why an example cannot be used; empty if it can."""
    if not example.caption:
        return "it has no caption"
    if wanted.placeholder and not names(example.caption, wanted.nouns):
        return f"its caption {example.caption!r} names none of {', '.join(wanted.nouns)}"
    if settings.mask == "none":
        return ""
    mask = photos.decoder(example)[..., 3]
    if mask.min() == 255:
        return "it has no mask"
    area, (low, high) = float(mask.mean()) / 255, settings.area
    return "" if low <= area <= high else f"its object covers {area:.2f} of it, not {low} to {high}"

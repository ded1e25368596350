"""Two pictures and two captions that differ in one thing each, as a stream of batches: made scenes, or a file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data.files import is_file, read_json
from studio.data.images import BadImageError, read
from studio.data.order import Order
from studio.data.sticker_config import StickerPairs
from studio.data.sticker_pairs import draw_twins
from studio.errors import StudioError
from studio.models.pixels import fit

FIELDS = ("image1", "caption1", "image2", "caption2")
NUM_GROUPS = 1 << 20
"""Groups that count as an epoch of made scenes; each step draws new ones."""


def require_even(batch_size: int) -> None:
    """Refuse batches that would split twins.

    Raises:
        StudioError: The batch size is odd.
    """
    if batch_size % 2:
        raise StudioError(
            f"loop.batch_size {batch_size} is odd, but pictures come in twins; choose {batch_size + 1}.",
            field="loop.batch_size",
        )


class StickerTwins:
    """New scenes in every step, a function of (seed, step): `images` (64 px, in [-1, 1]) and `captions`."""

    def __init__(self, settings: StickerPairs, *, held_out: bool = False) -> None:
        self._settings, self._held_out = settings, held_out

    def __len__(self) -> int:
        return NUM_GROUPS

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on; row 2 n + 1 is the twin of row 2 n."""
        require_even(shard.total)
        require_even(shard.stop - shard.start)
        for step in itertools.count(first):
            generator = torch.Generator().manual_seed(mix(seed, step, int(self._held_out)))
            drawn = draw_twins(self._settings, shard.total // 2, generator, held_out=self._held_out)
            rows = slice(shard.start, shard.stop)
            yield {"images": drawn.images[rows], "captions": drawn.captions[rows]}


class FileTwins:
    """Items of a JSON file, shuffled."""

    def __init__(self, file: str, size: int) -> None:
        """Read the file.

        Args:
            file: A list of objects with `image1`, `caption1`, `image2`, `caption2`; paths are relative to the file.
            size: Side of the pictures in pixels.

        Raises:
            StudioError: It is not such a file, or a picture is missing.
        """
        self._path, self._size = Path(file).expanduser(), size
        self._items = _items(self._path)

    def __len__(self) -> int:
        return len(self._items)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on; row 2 n + 1 is the twin of row 2 n."""
        require_even(shard.total)
        require_even(shard.stop - shard.start)
        order = Order(seed, shard.total // 2, (tuple(range(len(self._items))),))
        for step in itertools.count(first):
            chosen = [self._items[row] for row in order.rows(step, shard.start // 2, shard.stop // 2)]
            captions = [item[f"caption{n}"] for item in chosen for n in (1, 2)]
            yield {"images": self._images(chosen), "captions": captions}

    def _images(self, chosen: Sequence[Mapping[str, Any]]) -> Tensor:
        names = [item[f"image{n}"] for item in chosen for n in (1, 2)]
        return torch.cat([self._picture(name) for name in names])

    def _picture(self, name: str) -> Tensor:
        pixels = tv.pil_to_tensor(read(self._path.parent / name).rgb)
        return fit(pixels[None].float() / 127.5 - 1, self._size)


def _items(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise StudioError(
            f"There is no file {str(path)!r}; --data takes a JSON file of twins, or stickers.", field="data"
        )
    items = read_json(path)
    if not isinstance(items, list) or not items:
        raise StudioError(f"{path} is not a list of items with {', '.join(FIELDS)}.", field="data")
    for number, item in enumerate(items):
        missing = [key for key in FIELDS if not (isinstance(item, dict) and isinstance(item.get(key), str))]
        if missing:
            raise StudioError(
                f"Item {number} of {path} lacks {', '.join(missing)}; every item has {', '.join(FIELDS)}.",
                field="data",
            )
        for key in ("image1", "image2"):
            _check_picture(path.parent / item[key], number)
    return items


def _check_picture(picture: Path, number: int) -> None:
    if not is_file(picture):
        raise StudioError(
            f"Item {number} names the picture {str(picture)[:200]}, which does not exist.", field="data"
        )
    try:
        read(picture)
    except BadImageError as error:
        raise StudioError(f"Item {number}: {error}", field="data") from error

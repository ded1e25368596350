"""Same-subject sets from a folder of folders: `sets/rex/1.jpg`, with captions as for any training.

A step's sets all have one size. A folder with fewer pictures than that is filled up with padding, which `present`
says: `images` (b n 3 h w in [-1, 1]), `captions` (b lists of n), `present` (b n), `sizes` (b n 6; see `buckets.sizes_of`). Axes:
`b` sets, `n` members.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import buckets, images
from studio.data.buckets import Shape, Sizes
from studio.data.captions import fill
from studio.data.layouts import Record, find
from studio.data.order import Order, generator_for
from studio.data.set_config import SetFolder
from studio.data.sticker_sets import size_of
from studio.errors import StudioError

_NUMBER = re.compile(r"[\s_-]*\d+$")


class FolderSets:
    """Sets of a folder, shuffled by epoch; the members of a set and their order are drawn anew each time."""

    def __init__(self, settings: SetFolder, sizes: Sequence[int], *, side: int) -> None:
        """Find the sets.

        Args:
            settings: The folder.
            sizes: Sizes that sets may have; each step takes one.
            side: Height and width of the pictures.

        Raises:
            StudioError: No folder holds two pictures.
        """
        self._settings, self._sizes, self._side = settings, tuple(sizes), side
        root = Path(settings.folder).expanduser()
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        found = [(path.name, find(path).records) for path in folders if any(path.rglob("*.*"))]
        self._sets = [(name, records) for name, records in found if len(records) > 1]
        self.facts = [
            f"{len(self._sets)} sets of 2 to {max((len(r) for _, r in self._sets), default=0)} pictures"
        ]
        self.facts += [f"left out, a single picture: {name}" for name, records in found if len(records) < 2]
        if not self._sets:
            raise StudioError(
                f"Folder {settings.folder!r} holds no set; put at least two pictures of one subject in a folder of "
                "their own below it.",
                field="data.folder",
            )
        self._kept: dict[Path, tuple[Tensor, Sizes]] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of the steps `first`, `first + 1`, ..."""
        order = Order(seed, shard.total, (tuple(range(len(self._sets))),))
        step = first
        while True:
            size = size_of(self._sizes, seed, step)
            rows = order.rows(step, shard.start, shard.stop)
            drawn = [
                self._set(number, size, generator_for(seed, step * shard.total + shard.start + row))
                for row, number in enumerate(rows)
            ]
            yield {
                "images": torch.stack([one[0] for one in drawn]),
                "captions": [one[1] for one in drawn],
                "present": torch.stack([one[2] for one in drawn]),
                "sizes": torch.stack([one[3] for one in drawn]),
            }
            step += 1

    def _set(
        self, number: int, size: int, generator: torch.Generator
    ) -> tuple[Tensor, list[str], Tensor, Tensor]:
        name, records = self._sets[number]
        chosen = torch.randperm(len(records), generator=generator)[:size].tolist()
        found = [self._picture(records[i].path) for i in chosen]
        pictures, sizes = torch.stack([picture for picture, _ in found]), [told for _, told in found]
        if float(torch.rand((), generator=generator)) < self._settings.flip:
            pictures = pictures.flip(-1)
        captions = [self._caption(name, records[i]) for i in chosen]
        missing = size - len(chosen)
        padded = torch.cat([pictures, pictures[-1:].expand(missing, -1, -1, -1)])
        told = torch.tensor([*sizes, *sizes[-1:] * missing])
        return padded, captions + [""] * missing, torch.arange(size) < len(chosen), told

    def _caption(self, name: str, record: Record) -> str:
        class_name = record.class_name or _NUMBER.sub("", name).replace("_", " ")
        return fill(record.caption or self._settings.caption, "", class_name)

    def _picture(self, path: Path) -> tuple[Float[Tensor, "3 h w"], Sizes]:
        """The middle square of a picture, kept in memory as bytes, and its sizes; mirrored it lies as it lay."""
        if path not in self._kept:
            read = images.read(path, needed=self._side)
            fitted = ImageOps.fit(read.rgb, (self._side, self._side), Image.Resampling.LANCZOS)
            square = Shape(self._side, self._side)
            covering = buckets.cover_size(*read.size, square)
            sizes = buckets.sizes_of(read.size, covering, square, buckets.centered(covering, square))
            self._kept[path] = pil_to_tensor(fitted), sizes
        pixels, sizes = self._kept[path]
        return pixels.float() / 127.5 - 1, sizes

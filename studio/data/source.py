"""Pictures and captions as a stream of batches. Axes: `b` rows of a process, `c h w` image."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import buckets, captions, images
from studio.data.buckets import Shape, View
from studio.data.config import Images
from studio.data.layouts import Record
from studio.data.order import Order, generator_for
from studio.data.prefetch import prefetch

KEEP_BYTES = 1 << 29
"""Decoded pictures kept in memory: half a GiB, about 650 at 512 pixels."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A usable picture: its record, the shape it is trained at, its size when it covers that shape, its caption."""

    record: Record
    shape: Shape
    size: tuple[int, int]
    original: tuple[int, int]
    """Width and height of the file, upright."""
    caption: str

    def sizes(self, view: View) -> buckets.Sizes:
        """What a model that reads sizes is told of a view."""
        return buckets.sizes_of(self.original, self.size, self.shape, view)


class Decoder:
    """Covering pictures of examples, (h, w, 4) uint8: RGB and mask; kept in memory as far as there is room."""

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self._room, self._kept, self._lock = keep_bytes, dict[Example, np.ndarray](), threading.Lock()

    def __call__(self, example: Example) -> np.ndarray:
        """The picture of an example.

        Raises:
            BadImageError: If it cannot be read (any more).
        """
        if example in self._kept:
            return self._kept[example]
        pixels = self._decode(example)
        with self._lock:
            if example not in self._kept and pixels.nbytes <= self._room:
                self._room -= pixels.nbytes
                self._kept[example] = pixels
        return pixels

    def _decode(self, example: Example) -> np.ndarray:
        picture = images.read(example.record.path, needed=max(example.shape.width, example.shape.height))
        mask = picture.mask if example.record.mask is None else images.read_mask(example.record.mask)
        rgb = buckets.cover(picture.rgb, example.size)
        mask = Image.new("L", example.size, 255) if mask is None else buckets.cover(mask, example.size)
        return np.dstack([np.asarray(rgb), np.asarray(mask)])


def take(pixels: np.ndarray, shape: Shape, view: View) -> Float[Tensor, "4 h w"]:
    """A view of a covering picture: RGB in [-1, 1] and the mask in [0, 1]."""
    part = pixels[view.top : view.top + shape.height, view.left : view.left + shape.width]
    part = part[:, ::-1] if view.flipped else part
    scaled = rearrange(torch.from_numpy(part.copy()), "h w c -> c h w").float() / 255
    return torch.cat([scaled[:3] * 2 - 1, scaled[3:]])


class Photos:
    """A `Source` of pictures: `images` (b c h w in [-1, 1]), `captions`, `sizes`, `rows`, and `loss_mask` with masks on.

    Every number drawn for a row follows from (seed, step * total + row), so the stream starts anywhere and is the
    same at any world size.
    """

    def __init__(
        self, settings: Images, examples: Sequence[Example], decoder: Decoder, facts: Sequence[str]
    ) -> None:
        self.settings, self.examples, self.facts = settings, tuple(examples), list(facts)
        self.decoder = decoder

    def __len__(self) -> int:
        """Number of examples in one pass, repeats counted."""
        return sum(example.record.repeats for example in self.examples)

    def order(self, seed: int, total: int) -> Order:
        """Which picture stands in which row: repeats count, and a batch holds one shape."""
        groups: dict[Shape, list[int]] = {}
        for index, example in enumerate(self.examples):
            groups.setdefault(example.shape, []).extend([index] * example.record.repeats)
        return Order(seed, total, tuple(tuple(groups[shape]) for shape in sorted(groups)))

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ...: the rows of `shard`, made ahead in the background."""
        order = self.order(seed, shard.total)
        return prefetch(lambda step: self.batch(order, step, shard), first)

    def batch(self, order: Order, step: int, shard: Shard) -> Batch:
        """The rows of a shard at a step."""
        positions = range(step * shard.total + shard.start, step * shard.total + shard.stop)
        chosen = [self.examples[index] for index in order.rows(step, shard.start, shard.stop)]
        drawn = [
            self._row(example, order.seed, place) for example, place in zip(chosen, positions, strict=True)
        ]
        views, captions_ = [view for view, _ in drawn], [caption for _, caption in drawn]
        pixels = torch.stack([self._pixels(*pair) for pair in zip(chosen, views, strict=True)])
        sizes = [example.sizes(view) for example, view in zip(chosen, views, strict=True)]
        batch: Batch = {
            "images": pixels[:, :3],
            "captions": captions_,
            "sizes": torch.tensor(sizes),
            "rows": torch.tensor(list(positions)),
        }
        return {**batch, "loss_mask": pixels[:, 3:]} if self.settings.masks else batch

    def _row(self, example: Example, seed: int, position: int) -> tuple[View, str]:
        generator = generator_for(seed, position)
        settings = self.settings
        view = buckets.draw_view(example.size, example.shape, settings.crop, settings.flip, generator)
        return view, captions.vary(example.caption, settings.captions, generator)

    def _pixels(self, example: Example, view: View) -> Float[Tensor, "4 h w"]:
        return take(self.decoder(example), example.shape, view)

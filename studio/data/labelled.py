"""Labelled pictures as a stream of batches in [0, 1]. Axes: `b` rows of a process, `k` classes, `c h w` image."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import UInt8
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data.at_once import at_once
from studio.data.chance import seeded
from studio.data.config import Labelled
from studio.data.images import BadImageError
from studio.data.order import Order, generator_for, spread
from studio.data.pools import Pool
from studio.data.prefetch import prefetch
from studio.errors import StudioError

logger = logging.getLogger(__name__)
KEEP_BYTES = 2 << 30
"""Prepared pictures kept in memory: 2 GiB, about 14,000 at 224 pixels."""
SHIFT = 8
"""Pictures are shifted by up to an eighth of their side (CIFAR practice: 4 of 32 pixels)."""
_MIXING = 21


class Canvas:
    """How a picture becomes (c s s) uint8 for a model, by the model's own timm data configuration.

    Evaluation resizes and takes the center as timm does. A picture no larger than the model's input is not cropped:
    it would be enlarged only to lose its margin.
    """

    def __init__(self, settings: Labelled, data_config: Mapping[str, Any]) -> None:
        channels, height, _ = data_config["input_size"]
        self.channels, self.side = int(channels), settings.resolution or int(height)
        common = {
            "input_size": (self.channels, self.side, self.side),
            "interpolation": data_config["interpolation"],
            "normalize": False,
        }
        fraction = data_config["crop_pct"]
        transforms: Callable[..., Any] = create_transform
        self._larger: Callable[..., Tensor] = transforms(
            **common, crop_pct=fraction, crop_mode=data_config["crop_mode"]
        )
        self._smaller: Callable[..., Tensor] = transforms(**common, crop_pct=1.0)
        self._varied: Callable[..., Tensor] = transforms(
            **common,
            is_training=True,
            scale=settings.crop_scale,
            hflip=settings.flip,
            auto_augment=settings.randaugment or None,
        )

    def still(self, pool: Pool, index: int) -> UInt8[Tensor, "c s s"]:
        """The picture as it is evaluated."""
        image = pool.load(index).convert("L" if self.channels == 1 else "RGB")
        return (self._larger if min(image.size) > self.side else self._smaller)(image)

    def varied(self, pool: Pool, index: int) -> UInt8[Tensor, "c s s"]:
        """The picture by timm's training transform, from the global generators."""
        return self._varied(pool.load(index).convert("L" if self.channels == 1 else "RGB"))

    def small(self, pixels: np.ndarray) -> UInt8[Tensor, "n c s s"]:
        """Many small pictures of one size (n h w or n h w 3) at once."""
        pictures = torch.from_numpy(pixels.copy())
        if pictures.ndim == 3:
            pictures = repeat(pictures, "n h w -> n c h w", c=self.channels)
        else:
            pictures = rearrange(pictures, "n h w c -> n c h w")
        parts = [
            tv.resize(part, [self.side, self.side], tv.InterpolationMode.BICUBIC)
            for part in pictures.split(1024)
        ]
        return torch.cat(parts)


class LabelledPhotos:
    """A `Source` of `images` (b c s s in [0, 1]), `labels` (b), `rows`; with mixing also soft `targets` (b k).

    Every number drawn for a row follows from (seed, step * total + row); mixing pairs the rows of the global batch,
    so the stream is the same at any world size.
    """

    def __init__(
        self, settings: Labelled, pool: Pool, data_config: Mapping[str, Any], *, trains: bool
    ) -> None:
        """Prepare the pictures of a pool.

        Args:
            settings: How they become examples.
            pool: The pictures.
            data_config: `timm.data.resolve_model_data_config(model)`.
            trains: Whether they are varied; held-out ones are not.

        Raises:
            StudioError: If a picture cannot be used.
        """
        self.settings, self.trains = settings, trains
        self._canvas = Canvas(settings, data_config)
        self._uses_timm = trains and settings.augment == "timm"
        self.pool, self._pixels = (pool, None) if self._uses_timm else self._prepare(pool)
        self.classes, self.facts = self.pool.classes, [self.pool.fact()]
        self._mixup = self._mixing()

    def __len__(self) -> int:
        """Number of distinct pictures."""
        return len(self.pool)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every picture once, unvaried, in the order of the pool; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self._unvaried(list(range(start, min(start + batch_size, len(self)))))

    def look(self, count: int) -> Batch:
        """The same few pictures every time, unvaried, spread over the classes."""
        return self._unvaried(spread(self.pool.labels, count).tolist())

    def _unvaried(self, rows: list[int]) -> Batch:
        pixels = torch.stack([self._still(index) for index in rows])
        return {"images": pixels.float() / 255, "labels": self._labels(rows), "rows": torch.tensor(rows)}

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ...: the rows of `shard`."""
        order = Order(seed, shard.total, (tuple(range(len(self))),))

        def make(step: int) -> Batch:
            return self._batch(order, step, shard)

        # timm's transforms draw from global generators, which only the thread that trains may touch.
        made = _one_by_one(make, first) if self._uses_timm else prefetch(make, first)
        with closing(made):
            for step, batch in enumerate(made, first):
                yield self._mixed(batch, seed, step)

    def _batch(self, order: Order, step: int, shard: Shard) -> Batch:
        """The rows of a shard, before mixing; `partners` are the rows they will be mixed with."""
        own = list(range(shard.start, shard.stop))
        partners = [shard.total - 1 - row for row in own] if self._mixup else []
        examples = dict(enumerate(order.rows(step, 0, shard.total))) if partners else {}
        examples = examples or dict(zip(own, order.rows(step, shard.start, shard.stop), strict=True))
        needed = sorted({*own, *partners})
        pixels = {row: self._row(examples[row], order.seed, step * shard.total + row) for row in needed}
        batch: Batch = {
            "images": torch.stack([pixels[row] for row in own]).float() / 255,
            "labels": self._labels([examples[row] for row in own]),
            "rows": torch.tensor([step * shard.total + row for row in own]),
        }
        if partners:
            batch["partners"] = torch.stack([pixels[row] for row in partners]).float() / 255
            batch["partner_labels"] = self._labels([examples[row] for row in partners])
        return batch

    def _mixed(self, batch: Batch, seed: int, step: int) -> Batch:
        """Mixup or cutmix with the partners: timm mixes row i with row -1 - i, so they go behind in reverse."""
        if self._mixup is None:
            return batch
        partners, labels = batch.pop("partners"), batch.pop("partner_labels")
        with seeded(mix(seed, _MIXING, step)):
            images, targets = self._mixup(
                torch.cat([batch["images"], partners.flip(0)]), torch.cat([batch["labels"], labels.flip(0)])
            )
        rows = len(batch["labels"])
        return {**batch, "images": images[:rows], "targets": targets[:rows]}

    def _row(self, index: int, seed: int, position: int) -> UInt8[Tensor, "c s s"]:
        """One picture, varied as the settings say."""
        if self._uses_timm:
            with seeded(mix(seed, position)):
                return self._canvas.varied(self.pool, index)
        still = self._still(index)
        if not self.trains or self.settings.augment == "none":
            return still
        return crop_flip(still, self.settings.flip, generator_for(seed, position))

    def _still(self, index: int) -> UInt8[Tensor, "c s s"]:
        return self._canvas.still(self.pool, index) if self._pixels is None else self._pixels[index]

    def _labels(self, rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.pool.labels[np.asarray(rows, dtype=np.int64)])

    def _mixing(self) -> Mixup | None:
        settings = self.settings
        if not self.trains or settings.mixup == settings.cutmix == 0:
            return None
        return Mixup(settings.mixup, settings.cutmix, label_smoothing=0.0, num_classes=len(self.classes))

    def _prepare(self, pool: Pool) -> tuple[Pool, UInt8[Tensor, "n c s s"] | None]:
        """The usable pictures, decoded if memory has room for them."""
        side = self._canvas.side
        if len(pool) * self._canvas.channels * side * side > KEEP_BYTES:
            logger.info("%s: pictures are decoded when they are needed", pool.name)
            return pool, None
        if (
            pool.pixels is not None
            and max(pool.pixels.shape[1:3]) <= side
            and len(set(pool.pixels.shape[1:3])) == 1
        ):
            return pool, self._canvas.small(pool.pixels)
        good, pixels = self._decode(pool)
        return (pool if len(good) == len(pool) else pool.subset(good)), pixels

    def _decode(self, pool: Pool) -> tuple[list[int], UInt8[Tensor, "n c s s"]]:
        """Places of the usable pictures, and their pixels.

        Raises:
            StudioError: If one cannot be used and may not be skipped, or a class loses all its pictures.
        """

        def attempt(index: int) -> Tensor | BadImageError:
            try:
                return self._canvas.still(pool, index)
            except BadImageError as error:
                return error

        results = at_once(attempt, range(len(pool)), "pictures")
        for result in results:
            if isinstance(result, BadImageError):
                if self.settings.on_bad == "stop":
                    raise result
                logger.warning("skipped %s: it %s", result.path, result.reason)
        good = [index for index, result in enumerate(results) if isinstance(result, Tensor)]
        missing = set(pool.labels.tolist()) - set(pool.labels[good].tolist())
        if missing:
            name = pool.classes[min(missing)]
            raise StudioError(
                f"No picture of class {name!r} in {pool.name} can be used; add some.", field="train"
            )
        return good, torch.stack([result for result in results if isinstance(result, Tensor)])


def crop_flip(
    pixels: UInt8[Tensor, "c s s"], flip: float, generator: torch.Generator
) -> UInt8[Tensor, "c s s"]:
    """A picture shifted by up to an eighth of its side over black, and sometimes mirrored."""
    side = pixels.shape[-1]
    room = side // SHIFT
    x, y, mirrored = torch.rand(3, generator=generator).tolist()
    left, top = int(x * (2 * room + 1)), int(y * (2 * room + 1))
    part = F.pad(pixels, (room, room, room, room))[:, top : top + side, left : left + side]
    return part.flip(-1) if mirrored < flip else part


def _one_by_one(make: Callable[[int], Batch], first: int) -> Generator[Batch, None, None]:
    for step in count(first):
        yield make(step)

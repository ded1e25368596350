"""Pictures with labels or captions for dual encoders: pictures in [-1, 1], classes halved into base and new.

Axes: `b` rows, `c h w` picture, `d` features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.data.build import images as open_images
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.order import Order, permutation
from studio.data.pools import Pool, split
from studio.data.scenes import SceneSource
from studio.errors import StudioError
from studio.matching.config import Captioned, Classes, Scenes
from studio.matching.own import OwnPairs
from studio.settings.custom import Custom

_HALVES = 31


def halves(classes: Sequence[str], order: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Base and new classes: the first ceil(n / 2) and the rest, of sorted names or of a shuffled order.

    The protocol of CoOp's successors (CoCoOp, arXiv 2203.05557, section 4.1).
    """
    names = sorted(classes)
    if order:
        names = [names[place] for place in permutation(len(names), _HALVES, order)]
    middle = (len(names) + 1) // 2
    return tuple(names[:middle]), tuple(names[middle:])


def only(pool: Pool, classes: Sequence[str]) -> Pool:
    """The pictures of some classes, labelled from 0 in the order given."""
    places = {name: place for place, name in enumerate(classes)}
    label_of = np.array([places.get(name, -1) for name in pool.classes])
    chosen = np.flatnonzero(label_of[pool.labels] >= 0)
    kept = pool.subset(chosen)
    return replace(kept, classes=tuple(classes), labels=label_of[kept.labels])


@dataclass(frozen=True)
class Task:
    """Labelled pictures for training on some classes.

    Attributes:
        classes: Trained on, in the order of the labels.
        unseen: Of the same data, not trained on.
    """

    train: "Labels"
    test: "Labels"
    classes: tuple[str, ...]
    unseen: tuple[str, ...]


def open_task(settings: Labelled, chosen: Classes, data_config: Mapping[str, Any]) -> Task:
    """The pictures to train on and those held out, of the chosen classes only: others are never read.

    Raises:
        StudioError: If the data cannot be read, or has too few classes.
    """
    pools = split(settings)
    classes, unseen = pools.classes, ()
    if chosen.part == "base":
        classes, unseen = halves(pools.classes, chosen.order)
        if len(unseen) < 1 or len(classes) < 2:
            raise StudioError(
                f"The data has {len(pools.classes)} classes, too few to keep half of them as new; give at least 3.",
                field="classes.part",
            )
    train, test = (
        Labels(LabelledPhotos(settings, only(pool, classes), data_config, trains=trains))
        for pool, trains in ((pools.train, True), (pools.test, False))
    )
    return Task(train, test, tuple(classes), tuple(unseen))


class Labels:
    """Labelled pictures in [-1, 1]: `images`, `labels`, `rows`."""

    def __init__(self, photos: LabelledPhotos) -> None:
        self.photos, self.facts = photos, photos.facts

    def __len__(self) -> int:
        return len(self.photos)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on."""
        for batch in self.photos.stream(seed, first, shard):
            yield _signed(batch)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every picture once, unvaried."""
        for batch in self.photos.ordered(batch_size):
            yield _signed(batch)

    def look(self, count: int) -> Batch:
        """The same few pictures every time, unvaried, spread over the classes."""
        return _signed(self.photos.look(count))

    @property
    def varies(self) -> bool:
        """Whether a picture looks different each time."""
        settings = self.photos.settings
        return self.photos.trains and (
            settings.augment != "none" or settings.mixup > 0 or settings.cutmix > 0
        )


class Features:
    """Features that were computed once, as a source: `features`, `labels`, `rows`. For frozen image towers."""

    def __init__(self, features: Float[Tensor, "n d"], labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on: the same rows as `Labels` would give."""
        order = Order(seed, shard.total, (tuple(range(len(self))),))
        step = first
        while True:
            rows = order.rows(step, shard.start, shard.stop)
            places = range(step * shard.total + shard.start, step * shard.total + shard.stop)
            yield {
                "features": self.features[rows],
                "labels": self.labels[rows],
                "rows": torch.tensor(list(places)),
            }
            step += 1


def captioned(settings: Captioned | Scenes | Custom, size: int) -> Source:
    """Pictures with captions.

    Raises:
        StudioError: If a picture has no caption, or cannot be read.
    """
    if isinstance(settings, Scenes):
        return SceneSource(settings.scenes)
    if isinstance(settings, Custom):
        return OwnPairs(settings, size)
    source = open_images(settings.images, settings.folder, size=size, multiple=1)
    empty = [example for example in source.examples if not example.caption]  # pyright: ignore[reportAttributeAccessIssue]
    if empty:
        raise StudioError(
            f"Picture {str(empty[0].record.path)!r} has no caption ({len(empty)} in all); write one in a text file of the "
            "same name.",
            field="data.folder",
        )
    return source


def _signed(batch: Batch) -> Batch:
    return {**batch, "images": batch["images"] * 2 - 1}

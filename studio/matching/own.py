"""Pictures with captions from outside, each batch checked. Axes: `b` pictures."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from studio.backend.shard import Shard
from studio.catalog import outside
from studio.contracts.batch import Batch, Source
from studio.errors import StudioError
from studio.settings.custom import Custom

OUTSIDE = 1.01
"""Largest value of a pixel: 1, and what resizing rounds."""


class OwnPairs:
    """The person's own source of `images` and `captions`."""

    def __init__(self, custom: Custom, size: int) -> None:
        """Make it.

        Raises:
            StudioError: It is not there, or is no source.
        """
        self._path, self._size = custom.path, size
        found: Any = outside.called(custom, size=size, what="Data", field="data")
        if not isinstance(found, Source):
            raise self._wrong(f"is a {type(found).__name__} without stream(seed, first, shard) or len()")
        self._source = found

    def __len__(self) -> int:
        return len(self._source)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on.

        Raises:
            StudioError: One is not as it should be.
        """
        rows = shard.stop - shard.start
        for batch in self._source.stream(seed, first, shard):
            self._check(batch, rows)
            yield batch

    def _check(self, batch: Batch, rows: int) -> None:
        wanted = (rows, 3, self._size, self._size)
        images, captions = batch.get("images"), batch.get("captions")
        if not isinstance(images, Tensor) or images.shape != wanted:
            given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise self._wrong(f"gave images {given} where {wanted} is needed")
        if (
            not isinstance(captions, list)
            or len(captions) != rows
            or not all(isinstance(c, str) for c in captions)
        ):
            raise self._wrong(f"gave captions that are no list of {rows} texts")
        low, high = torch.aminmax(images)
        if not (float(low) >= -OUTSIDE and float(high) <= OUTSIDE):  # NaN is neither
            raise self._wrong(f"gave pixels from {float(low):g} to {float(high):g}, which belong in [-1, 1]")

    def _wrong(self, fault: str) -> StudioError:
        return StudioError(f"Data {self._path!r} {fault}; correct it.", field="data.path")

"""Which example stands in which row of which step: a function of (seed, step) that can start anywhere.

Examples are in buckets; a batch holds one bucket. In a cycle of N steps (N examples in all), bucket k with n_k
examples gives n_k batches, in an order shuffled by (seed, cycle). Its rows, batch after batch, run through
permutations of its examples by (seed, k, epoch). So every example is seen equally often, to the row, whatever the
batch size. With one bucket this is the ordinary shuffle: row i of step s is place s * total + i of the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from studio.backend.rng import mix

_EPOCH, _CYCLE, _SAMPLE = 1, 2, 3


def generator_for(seed: int, position: int) -> torch.Generator:
    """The random numbers of one place in the stream: `position` = step * total + row."""
    return torch.Generator().manual_seed(mix(seed, _SAMPLE, position))


@lru_cache(maxsize=64)
def permutation(n: int, *keys: int) -> np.ndarray:
    """A shuffle of range(n) by integer keys."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix(*keys))).numpy()


def spread(labels: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Places of `count` examples, or of all, that have the classes in the proportions of all: the same ones every time.

    Args:
        labels: Class of each example, in any order.
        count: How many are taken.
    """
    by_class = np.argsort(np.asarray(labels), kind="stable")
    steps = np.linspace(0, len(by_class) - 1, min(count, len(by_class))).round().astype(np.int64)
    return np.sort(by_class[steps])


@dataclass(frozen=True)
class Order:
    """The order of examples: `buckets` lists the examples (any integers) of each bucket."""

    seed: int
    total: int
    buckets: tuple[tuple[int, ...], ...]

    def rows(self, step: int, start: int, stop: int) -> list[int]:
        """The examples of rows `start` to `stop` of a step."""
        bucket, batch = self._batch(step)
        examples = self.buckets[bucket]
        places = range(batch * self.total + start, batch * self.total + stop)
        return [examples[self._shuffled(bucket, place)] for place in places]

    def _shuffled(self, bucket: int, place: int) -> int:
        n = len(self.buckets[bucket])
        epoch, index = divmod(place, n)
        return int(permutation(n, self.seed, _EPOCH, bucket, epoch)[index])

    def _batch(self, step: int) -> tuple[int, int]:
        """The bucket of a step, and how many batches of that bucket came before it."""
        if len(self.buckets) == 1:
            return 0, step
        sizes = tuple(len(bucket) for bucket in self.buckets)
        cycle, index = divmod(step, sum(sizes))
        turns, counts = _turns(sizes, self.seed, cycle)
        bucket = int(turns[index])
        return bucket, cycle * sizes[bucket] + int(counts[index])


@lru_cache(maxsize=4)
def _turns(sizes: Sequence[int], seed: int, cycle: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each step of a cycle, and how many batches of it came before in the cycle."""
    turns = np.repeat(np.arange(len(sizes)), sizes)[permutation(sum(sizes), seed, _CYCLE, cycle)]
    counts = np.zeros_like(turns)
    for bucket in range(len(sizes)):
        mine = turns == bucket
        counts[mine] = np.arange(mine.sum())
    return turns, counts

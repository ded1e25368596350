"""The part of a batch that one process reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The rows of a global batch of `total` examples that one process reads: `start` to `stop`."""

    total: int
    start: int
    stop: int

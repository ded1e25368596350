"""What data gives and steps take: a batch, and a source of batches."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from studio.backend.shard import Shard

Batch = dict[str, Any]
"""One step's examples. Usual keys: `images` (b c h w in [-1, 1]), `latents`, `captions` (list of str),
`latents_std`, `loss_mask` (b 1 h w in [0, 1]), `labels` (b), `rows` (global positions), `sizes` (b 6: height and width of the
file, top and left of the crop, height and width of the crop, in pixels). Values are tensors or lists, b long."""


@runtime_checkable
class Source(Protocol):
    """Where batches come from. The stream is a function of (seed, step): it can start anywhere."""

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ...: the rows of `shard`, in global order, on the CPU."""
        ...

    def __len__(self) -> int:
        """Number of examples in one pass over the data (an epoch), repeats counted."""
        ...

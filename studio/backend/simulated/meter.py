"""Counts the memory of every tensor that lives on a device without being there, by kind."""

import weakref
from collections import Counter
from typing import Literal

from torch import Tensor

Kind = Literal["weights", "gradients", "optimizer", "activations"]
BLOCK = 512
"""Bytes that CUDA's allocator rounds up to."""


class Meter:
    """Bytes held on one device: now, and by kind at the highest moment since the last `reset`.

    A storage counts from its first tensor to its last, whole blocks each. It counts as activations until `call` says
    otherwise.
    """

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._highest = 0
        self._live: dict[int, tuple[str, int]] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._live[key] = ("activations", size)
        self.now["activations"] += size
        weakref.finalize(storage, self._drop, key)
        self._look()

    def call(self, tensor: Tensor, kind: Kind) -> None:
        """Say what a tensor is."""
        self.add(tensor)
        key = tensor.untyped_storage()._cdata
        old, size = self._live[key]
        self._live[key] = (kind, size)
        self.now[old] -= size
        self.now[kind] += size

    def reset(self) -> None:
        """Begin a new peak."""
        self._highest = 0
        self._look()

    @property
    def total(self) -> int:
        """Bytes held now."""
        return sum(self.now.values())

    @property
    def highest(self) -> int:
        """Bytes held at the highest moment."""
        return self._highest

    def _look(self) -> None:
        total = sum(self.now.values())
        if total > self._highest:
            self._highest, self.peak = total, Counter(self.now)

    def _drop(self, key: int) -> None:
        kind, size = self._live.pop(key)
        self.now[kind] -= size

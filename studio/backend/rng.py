"""Random numbers as a function of (seed, step, global row).

Numbers are drawn for the whole global batch on the CPU, and a process or an accumulated part takes its own
rows. So a run repeats on any number of processes, with any accumulation, and after any resume.
"""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor

_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 63) - 1


def mix(*keys: int) -> int:
    """One 63-bit seed from several integers (splitmix64); every key matters."""
    value = 0
    for key in keys:
        value = (value + key + _MIX) & ((1 << 64) - 1)
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & ((1 << 64) - 1)
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & ((1 << 64) - 1)
        value ^= value >> 31
    return value & _MASK


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators forked and seeded inside, as they were before afterwards: for code that draws from them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mix(seed))
        yield


class Rng:
    """Draws for rows `start` to `stop` of a batch of `total` rows.

    Every draw's first axis is the local rows. The same sequence of calls gives the same numbers.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        *,
        total: int,
        start: int = 0,
        stop: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.generator = torch.Generator().manual_seed(mix(seed, step))
        self.device = torch.device(device)
        self.total, self.start, self.stop = total, start, total if stop is None else stop

    @classmethod
    def single(cls, seed: int, step: int, n: int, device: torch.device | str = "cpu") -> "Rng":
        """A rng for all `n` rows of a batch."""
        return cls(seed, step, total=n, device=device)

    def at(self, device: torch.device | str) -> "Rng":
        """The same numbers in the same order, on another device: what Python decides by is drawn on the CPU."""
        twin = copy.copy(self)
        twin.device = torch.device(device)
        return twin

    def _rows(self, draw: Tensor) -> Tensor:
        return draw[self.start : self.stop].to(self.device)

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[0] != self.stop - self.start:
            raise ValueError(
                f"first axis is {shape[0]}, but this rng draws for {self.stop - self.start} rows"
            )
        return (self.total, *shape[1:])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return self._rows(torch.randn(self._shape(shape), generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return self._rows(torch.rand(self._shape(shape), generator=self.generator))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform integers in [low, high)."""
        return self._rows(torch.randint(low, high, self._shape(shape), generator=self.generator))

"""Means with their standard errors. No torch."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values, their spread (standard deviation), and the standard error of the mean."""

    mean: float
    std: float
    se: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.se:.3f}" if self.n > 1 else f"{self.mean:.3f}"


def estimate(values: Iterable[float]) -> Estimate:
    """Mean, spread and standard error of independent values; one value has a standard error of 0 by convention.

    Raises:
        ValueError: There is no value.
    """
    found = sorted(values)  # sorted, so that the order of the work does not change the last digit
    if not found:
        raise ValueError("no values to average")
    std = statistics.stdev(found) if len(found) > 1 else 0.0
    return Estimate(math.fsum(found) / len(found), std, std / math.sqrt(len(found)), len(found))


def paired(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """The mean change between values that belong together (same prompt, same seed)."""
    return estimate(b - a for a, b in zip(before, after, strict=True))


def grouped(values: Mapping[tuple[str, int], float]) -> Estimate:
    """Mean over subjects of the mean over seeds: (subject, seed) to value.

    Seeds of one subject are not independent of each other, so `n` and the standard error count subjects.
    """
    subjects = sorted({subject for subject, _ in values})
    return estimate(estimate(v for (s, _), v in values.items() if s == subject).mean for subject in subjects)

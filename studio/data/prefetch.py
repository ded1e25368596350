"""Batches made ahead in the background while training computes."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

T = TypeVar("T")
AHEAD = 3
"""Batches in the making: one being taken, two being made (as DataLoader's prefetch_factor of 2)."""
WORKERS = 2
"""Threads: Pillow and numpy let go of the interpreter lock while they decode."""


def prefetch(make: Callable[[int], T], first: int) -> Generator[T, None, None]:
    """`make(first)`, `make(first + 1)`, ... in order, made ahead; closing the generator ends its threads.

    Every job is finite, so an abandoned stream never keeps the process from ending.
    """
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="data") as pool:
        pending: deque[Future[T]] = deque()
        try:
            for step in count(first):
                pending.append(pool.submit(make, step))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
        finally:
            for job in pending:
                job.cancel()

"""The same work on many files, several at a time; how many are done is told."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from studio.backend.progress import counted

T = TypeVar("T")
R = TypeVar("R")


def at_once(work: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """What the work gives for each item, in order.

    Args:
        work: Runs in threads, several at a time.
        items: What to work on.
        what: The items, in a word for people: pictures.
    """
    with ThreadPoolExecutor(thread_name_prefix="data") as pool:
        try:
            return list(counted(pool.map(work, items), what, len(items)))
        except BaseException:  # what has not begun is not done any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise

"""How far long work is, told from deep inside to whoever drives it: class pictures, latents, searches.

    for picture in counted(pictures, "class pictures", 100): ...

Who waits for the work drives it with `driven`, a generator of what is told. Work that nobody drives tells nobody.
"""

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
SECONDS = 0.25
"""Between two things told of the same work; the first and the last are always told."""


@dataclass(frozen=True)
class Progress:
    """Where a piece of work is: `done` of `total`; a total of 0 is not known."""

    what: str
    done: int = 0
    total: int = 0


class Abandoned(BaseException):
    """Raised inside work whose driver has gone; no `except Exception` may hold it up."""


_teller: contextvars.ContextVar[Callable[[Progress], None] | None] = contextvars.ContextVar(
    "teller", default=None
)


def tell(what: str, done: int = 0, total: int = 0) -> None:
    """Say where long work is, to who drives it."""
    if teller := _teller.get():
        teller(Progress(what, done, total))


def counted(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, telling after each how many are done."""
    tell(what, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        tell(what, done, total)


def driven(work: Callable[[], T], within: AbstractContextManager[Any]) -> Generator[Progress, None, T]:
    """Do work in a thread of its own and yield what it tells; returns what it gives, raises what it raises.

    The work stands still while the caller looks at what was told, so that the two never run at once; each keeps torch's
    random numbers to itself. Closing the generator ends the work the next time it tells something, and waits for that; an
    interrupt does not wait.

    Args:
        work: What to do; torch's modes (no_grad, autocast) are as they are in a new thread.
        within: Entered in that thread around the work, such as the choice of a GPU.
    """
    aside, callers = _Aside(work, within), _random_state()
    aside.thread.start()
    try:
        while isinstance(found := aside.told.get(), Progress):
            works = _exchange(callers)
            yield found
            callers = _exchange(works)
            aside.go.release()
    except BaseException as error:
        aside.abandoned = True
        aside.go.release()
        if not isinstance(error, KeyboardInterrupt):
            aside.thread.join()
        raise
    _exchange(callers)
    if aside.error is not None:
        raise aside.error
    return aside.given[0]


def _random_state() -> list[Tensor]:
    """State of torch's global generators: the CPU's, and those of GPUs that are in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def _exchange(state: list[Tensor]) -> list[Tensor]:
    """Set the state of torch's generators; gives the one before."""
    before = _random_state()
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])
    return before


class _Aside:
    """Work in a thread of its own, and what passes between it and its driver."""

    def __init__(self, work: Callable[[], Any], within: AbstractContextManager[Any]) -> None:
        self._work, self._within = work, within
        self.told: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self.go, self.abandoned = threading.Semaphore(0), False
        self.given: list[Any] = []
        self.error: BaseException | None = None
        self._last = ("", 0.0)
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=lambda: context.run(self._run), name="preparation", daemon=True)

    def _run(self) -> None:
        _teller.set(self._tell)
        try:
            with self._within:
                self.given.append(self._work())
        except BaseException as error:  # raised again by the driver, in the caller's thread
            self.error = error
        finally:
            self.told.put(None)

    def _tell(self, progress: Progress) -> None:
        if self.abandoned:
            raise Abandoned
        what, last = self._last
        if what == progress.what and progress.done != progress.total and time.monotonic() - last < SECONDS:
            return
        self._last = (progress.what, time.monotonic())
        self.told.put(progress)
        self.go.acquire()
        if self.abandoned:
            raise Abandoned

"""What happens before a run's first step: a trainer and data of a person's own, long preparations told as events."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from studio.backend.core import Backend
from studio.backend.progress import driven
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.batch import Source
from studio.contracts.trainer import Trainer
from studio.errors import StudioError
from studio.records import runs
from studio.records.lock import Lock
from studio.records.runs import EventLog, RunFolder
from studio.training import checkpoint
from studio.training.session import Event, Session
from studio.training.tracking import Tracker, chosen, tracker

log = logging.getLogger(__name__)


class Notes:
    """Writes events of a run: to `events.jsonl` and, once it begins, to the trackers; on the first process only.

    Args:
        folder: Of the run.
        lock: Holds the folder; None on other processes than the first.
    """

    def __init__(self, folder: RunFolder, lock: Lock | None) -> None:
        self._lock = lock
        self._folder, self._before = folder, folder.events.stat().st_size if folder.events.exists() else 0
        self._record = EventLog(folder) if lock else None
        self._copies: list[Tracker] = []

    def begin(self, names: Sequence[str], *, after: int | None) -> None:
        """Start the trackers; of a run that goes on after a step, drop what the record holds of later ones.

        Raises:
            StudioError: A tracker is not installed, or would send the run away.
        """
        if self._record is None:
            return
        self._copies = [tracker(name, self._folder) for name in chosen(names)]
        self._record.close()
        self._record = EventLog(self._folder, after=after)

    def forget(self) -> None:
        """Leave the record as it was before: a start that came to nothing is no event of the run."""
        if self._record:
            self._record.truncate(self._before)

    def require(self) -> None:
        """Refuse to go on once another process took the folder over."""
        if self._lock:
            self._lock.require()

    def __call__(self, event: str, **values: Any) -> Iterator[Event]:
        """The event, once it is written; nothing on other processes than the first."""
        self.require()
        if self._record:
            written = self._record.write(event, **values)
            for copy in list(self._copies):
                try:
                    copy.log(written)
                except Exception:  # whatever another library does, the record here is the run
                    log.exception("%s failed and gets no more events", type(copy).__name__)
                    self._copies.remove(copy)
            yield written

    def close(self) -> None:
        """End the record and the trackers."""
        for each in [self._record, *self._copies] if self._record else []:
            each.close()


@contextmanager
def held(folder: RunFolder, backend: Backend, new: Run | None = None) -> Iterator[Notes]:
    """A run folder for this run alone, made for a new one and swept for one that goes on; gives its record.

    Raises:
        StudioError: Another process works there.
    """
    with closing(Lock(folder.path)) if backend.rank == 0 else nullcontext() as lock:
        if lock and new:
            runs.create(new)
        elif lock:
            folder.sweep()
            checkpoint.sweep(folder.checkpoints)
        with closing(Notes(folder, lock)) as note:
            yield note


@dataclass(frozen=True)
class Own:
    """What a person brings along from Python, which no settings file can hold."""

    trainer: type[Trainer] | None = None
    source: Source | None = None

    def made(self, run: Run) -> Trainer:
        """The trainer of a run."""
        if self.trainer is not None and not (
            isinstance(self.trainer, type) and issubclass(self.trainer, Trainer)
        ):
            raise StudioError(
                f"trainer was given as {self.trainer!r}; give a class, a subclass of studio.contracts.trainer.Trainer, which "
                "is made with the method's settings.",
                field="trainer",
            )
        if self.source is not None and not isinstance(self.source, Source):
            raise StudioError(
                f"source was given as a {type(self.source).__name__}; give something with stream(seed, first, shard), which "
                "yields batches, and a length.",
                field="source",
            )
        trainer = (self.trainer or methods.card_of(run.method).load_trainer())(run.method)
        if (given := self.source) is not None:
            trainer.source = lambda: given
        return trainer

    def told(self) -> dict[str, str]:
        """What was brought along, for the record."""
        found = {
            "own_trainer": self.trainer,
            "own_source": None if self.source is None else type(self.source),
        }
        return {key: f"{cls.__module__}:{cls.__qualname__}" for key, cls in found.items() if cls}

    def refuse_other(self, folder: RunFolder, *keys: str) -> None:
        """Refuse to go on with a run without what it was begun with.

        Raises:
            StudioError: Names it.
        """
        begun = next(iter([*folder.read_events("start")][-1:]), {})
        for key in keys:
            if key in begun and key not in self.told():
                raise StudioError(
                    f"Run {str(folder.path)!r} was begun from Python with {begun[key]}; go on from Python too, and give it "
                    f"there: {key.removeprefix('own_')}=... of studio.resume or studio.export.",
                    field="run",
                )


def prepared(
    work: Callable[[], Session], note: Notes, backend: Backend, stop: Callable[[], bool]
) -> Generator[Event, None, Session | None]:
    """Do the work before the first step, telling how far it is; gives its session, or None if it was stopped."""
    yield from note("prepare", step=0, what="model", done=0, total=0)
    steps = driven(work, backend.here())
    while True:
        try:
            told = next(steps)
        except StopIteration as finished:
            return None if backend.world > 1 and backend.any(stop()) else finished.value
        try:
            yield from note("prepare", step=0, what=told.what, done=told.done, total=told.total)
        except GeneratorExit:
            steps.close()
            raise
        if backend.world == 1 and stop():  # of several processes none may leave the others waiting
            steps.close()
            return None

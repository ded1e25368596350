"""What happens before a run's first step: a trainer and data of a person's own, long preparations told as events."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from studio.backend.core import Backend
from studio.backend.progress import driven
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.batch import Source
from studio.contracts.trainer import Trainer
from studio.errors import StudioError
from studio.records.runs import EventLog, RunFolder
from studio.settings import serial
from studio.training.session import Event, Session
from studio.training.tracking import Tracker, chosen, tracker

_EXTENDS = {
    "loop.steps",
    "loop.epochs",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.keep_checkpoints",
    "name",
    "output",
}
_MACHINE = ("hardware.", "preview.", "trackers")


class Notes:
    """Writes events of a run: to `events.jsonl` and, once it begins, to the trackers; on the first process only."""

    def __init__(self, folder: RunFolder, backend: Backend) -> None:
        self._folder = folder
        self._record = EventLog(folder) if backend.rank == 0 else None
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

    def __call__(self, event: str, **values: Any) -> Iterator[Event]:
        """The event, once it is written; nothing on other processes than the first."""
        if self._record:
            written = self._record.write(event, **values)
            for copy in self._copies:
                copy.log(written)
            yield written

    def close(self) -> None:
        """End the record and the trackers."""
        for each in [self._record, *self._copies] if self._record else []:
            each.close()


@dataclass(frozen=True)
class Own:
    """What a person brings along from Python, which no settings file can hold."""

    trainer: type[Trainer] | None = None
    source: Source | None = None

    def made(self, run: Run) -> Trainer:
        """The trainer of a run."""
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
                    f"Run {str(folder.path)!r} was begun from Python with {begun[key]}; go on from Python too, with "
                    f"studio.resume(..., {key.removeprefix('own_')}=...).",
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
            return finished.value
        try:
            yield from note("prepare", step=0, what=told.what, done=told.done, total=told.total)
        except GeneratorExit:
            steps.close()
            raise
        if backend.world == 1 and stop():  # of several processes none may leave the others waiting
            steps.close()
            return None


def refuse_changes(old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    """Refuse to go on with changed settings, but for those that leave the mathematics as they are.

    Raises:
        StudioError: Says what was changed.
    """
    before, after = old["loop"], new["loop"]
    if after["epochs"] and before["steps"] != after["steps"]:
        raise StudioError(
            f"The run counts {after['epochs']} epochs, and loop.steps {after['steps']} would not be heeded; change "
            "--loop.epochs, or set it to 0.",
            field="loop.steps",
        )
    free = (
        set(_EXTENDS) if old["optim"]["schedule"] == "constant" else _EXTENDS - {"loop.steps", "loop.epochs"}
    )
    changed = [
        line
        for line in serial.differences(old, new)
        if (name := line.split(":")[0]) not in free and not name.startswith(_MACHINE)
    ]
    if changed and not allowed:
        raise StudioError(
            f"The run was made with other settings ({'; '.join(changed)}); resume with the same ones, or pass "
            "--allow-changes to go on as a different run.",
            field=changed[0].split(":")[0],
        )

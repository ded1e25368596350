"""The training use-case: settings to trained, exported weights, as a generator of events.

    for event in train(Run(method=DreamBooth(data="photos", subject="dog"))):
        print(event)

Closing the generator stops the run between two steps and saves it.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from studio.backend.core import Backend
from studio.catalog import methods
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.errors import RunFailed, StudioError
from studio.records import runs
from studio.records.runs import EventLog, RunFolder
from studio.settings import serial
from studio.training import checkpoint
from studio.training.loop import fit
from studio.training.session import Event, Session
from studio.training.tracking import chosen, tracker

log = logging.getLogger(__name__)
_EXTENDS = {
    "loop.steps",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.keep_checkpoints",
    "name",
    "output",
}
_MACHINE = ("hardware.", "preview.", "trackers")


Between = Callable[[Session], None]
"""Looks at a run between two steps; may draw from its live weights, must not change them."""


def _nothing(session: Session) -> None:
    del session


def train(
    run: Run, *, stop: Callable[[], bool] = lambda: False, between: Between = _nothing
) -> Iterator[Event]:
    """Train a new run. Yields events as they are written to `events.jsonl`.

    Args:
        run: What to do.
        stop: Asked after each step; yes ends the run there, saved.
        between: Called with the run in progress after each step.

    Raises:
        StudioError: the settings cannot work; nothing was written if it is found before the run folder is made.
        RunFailed: the run broke; everything up to the last good step is saved.
    """
    check(run)
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    backend = Backend(run.hardware)
    folder = _agreed_folder(run, backend)
    try:
        session = Session(run, folder, trainer, backend)
    except StudioError:
        if backend.rank == 0:
            folder.clear()
        raise
    yield from _drive(session, stop, between, resume=False)


def resume(
    path: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    allow_changes: bool = False,
    stop: Callable[[], bool] = lambda: False,
    between: Between = _nothing,
) -> Iterator[Event]:
    """Go on with a run from its newest sound checkpoint, exactly as if it had never stopped.

    Args:
        path: Run folder, or its name under `runs/`.
        changes: Settings to change. Only those that do not change the mathematics, such as `loop.steps` of a
            constant schedule or the hardware, pass without `allow_changes`.
        allow_changes: Take any change; the run is then no longer the uninterrupted one.
        stop: Asked after each step; yes ends the run there, saved.
        between: Called with the run in progress after each step.
    """
    folder, old = runs.open_run(path)
    values = old.to_dict()
    run = Run.from_dict(serial.merge(values, changes or {}))
    _refuse_changes(values, run.to_dict(), allow_changes)
    check(run)
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    backend = Backend(run.hardware)
    if backend.rank == 0:
        checkpoint.sweep(folder.checkpoints)
        runs.write_text(folder.config, json.dumps(run.to_dict(), indent=2) + "\n")
    session = Session(run, folder, trainer, backend)
    yield from _drive(session, stop, between, resume=True)


def export_again(folder: RunFolder, run: Run) -> list[str]:
    """Write a run's weights, as its newest sound checkpoint has them, into its export folder.

    Raises:
        StudioError: The run has no checkpoint, or the settings do not fit it.
    """
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    whole = dataclasses.replace(run, hardware=dataclasses.replace(run.hardware, sharded=False))
    session = Session(whole, folder, trainer, Backend(whole.hardware))
    if not session.resume():
        raise StudioError(
            f"Run {str(folder.path)!r} has no checkpoint to export; train it first.", field="run"
        )
    return session.export()


def _refuse_changes(old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    free = set(_EXTENDS) if old["optim"]["schedule"] == "constant" else _EXTENDS - {"loop.steps"}
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


def _agreed_folder(run: Run, backend: Backend) -> RunFolder:
    name = run.name or time.strftime(f"{methods.card_of(run.method).name}-%Y%m%d-%H%M%S")
    if backend.world > 1:
        names = [name]
        torch.distributed.broadcast_object_list(names)
        name = names[0]
    named = Run.from_dict(serial.merge(run.to_dict(), {"name": name}))
    if backend.rank == 0:
        return runs.create(named)
    return RunFolder(Path(run.output) / name)


class _Notes:
    """Writes events of a run: to `events.jsonl` and to the trackers, on the first process only."""

    def __init__(self, run: Run, folder: RunFolder, backend: Backend, *, after: int | None) -> None:
        first = backend.rank == 0
        self._record = EventLog(folder, after=after) if first else None
        self._copies = [tracker(name, folder) for name in chosen(run.trackers)] if first else []

    def __call__(self, event: str, **values: Any) -> Iterator[Event]:
        if self._record:
            written = self._record.write(event, **values)
            for copy in self._copies:
                copy.log(written)
            yield written

    def close(self) -> None:
        """End the record and the trackers."""
        for each in [self._record, *self._copies] if self._record else []:
            each.close()


def _drive(session: Session, stop: Callable[[], bool], between: Between, *, resume: bool) -> Iterator[Event]:
    run, folder, backend = session.run, session.folder, session.backend
    found = resume and session.resume()
    try:
        note = _Notes(run, folder, backend, after=session.step if found else None)
    except StudioError:
        if backend.rank == 0 and not resume:
            folder.clear()
        raise
    try:
        yield from note(
            "start", step=session.step, folder=str(folder.path), resumed=found, facts=session.facts()
        )
        yield from _look(session, note, force=not found)
        yield from _steps(session, note, stop, between)
        yield from _end(session, note, stop)
    except GeneratorExit:
        session.save()
        list(note("stopped", step=session.step))
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, perhaps amid a step: what is saved stays, nothing is added
        list(note("stopped", step=max(session.saved, 0)))
        raise
    except Exception as error:
        yield from note("failed", step=session.step, error=str(error) or type(error).__name__)
        _save_after(error, session)
        raise
    finally:
        note.close()
        if backend.world > 1:
            backend.close()


def _steps(session: Session, note: _Notes, stop: Callable[[], bool], between: Between) -> Iterator[Event]:
    for done in fit(session.trainer, session.learner, session.backend, session.run, first=session.step):
        session.step = done.step
        if done.values:
            yield from note("step", step=done.step, **done.values)
        yield from _look(session, note)
        between(session)
        if session.backend.any(stop()):
            return


def _end(session: Session, note: _Notes, stop: Callable[[], bool]) -> Iterator[Event]:
    finished = session.step >= session.run.loop.steps or not session.backend.any(stop())
    if path := session.save():
        yield from note("checkpoint", step=session.step, path=str(path))
    if finished:
        yield from note("export", step=session.step, files=_export(session))
    kind = "done" if finished else "stopped"
    yield from note(kind, step=session.step, seconds=time.time() - session.started)


def _export(session: Session) -> list[str]:
    """The run's exports; of sharded weights by one process, from the checkpoint just written."""
    if not session.backend.sharded:
        return session.export()
    files = export_again(session.folder, session.run) if session.backend.rank == 0 else []
    session.backend.wait()
    return files


def _save_after(error: Exception, session: Session) -> None:
    """Keep the work of a broken run: the state of the last finished step, unless saving is what broke."""
    if session.step == 0 or "could not be written" in str(error):
        return
    session.learner.optimizer.zero_grad(set_to_none=True)
    try:
        session.save()
    except RunFailed:
        log.exception("the checkpoint after the error could not be written")


def _look(session: Session, note: Callable[..., Iterator[Event]], *, force: bool = False) -> Iterator[Event]:
    """What is done between steps: previews, validation, checkpoints."""
    run, step = session.run, session.step
    best, improved = session.best, False
    if run.preview.every and (force or (step and step % run.preview.every == 0)):
        if event := session.preview():
            yield from note("preview", **event)
        improved = bool(step) and session.backend.any(session.best != best)
    if (
        run.loop.validate_every
        and (force or step % run.loop.validate_every == 0)
        and (event := session.validate())
    ):
        yield from note("validation", **event)
    due = step and run.loop.checkpoint_every and step % run.loop.checkpoint_every == 0
    if (due or improved) and session.trainer.resumable(step) and (path := session.save()):
        yield from note("checkpoint", step=step, path=str(path), best=session.best[1] == step)


def run_to_end(run: Run) -> RunFolder:
    """Train a run without looking at its events; gives its folder."""
    path = ""
    for event in train(run):
        path = event.get("folder", path) if event["event"] == "start" else path
    return RunFolder(Path(path))

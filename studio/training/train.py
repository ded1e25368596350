"""The training use-case: settings to trained, exported weights, as a generator of events.

    for event in train(Run.of("dreambooth", data="photos", class_word="dog")):
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
from studio.catalog import methods, presets
from studio.catalog.checks import check, refuse_changes
from studio.catalog.run import Run
from studio.contracts.batch import Source
from studio.contracts.trainer import Trainer
from studio.errors import RunFailed
from studio.records import runs
from studio.records.lock import Taken
from studio.records.runs import RunFolder
from studio.settings import serial
from studio.training import checkpoint
from studio.training.export import export_again
from studio.training.loop import fit
from studio.training.out_of_memory import explained
from studio.training.preparing import Notes, Own, held, prepared
from studio.training.session import Event, Session

log = logging.getLogger(__name__)
Between = Callable[[Session], None]
"""Looks at a run between two steps; may draw from its live weights, must not change them."""


def _nothing(session: Session) -> None:
    del session


def _never() -> bool:
    return False


def train(  # what a person may bring along
    run: Run,
    *,
    trainer: type[Trainer] | None = None,
    source: Source | None = None,
    stop: Callable[[], bool] = _never,
    between: Between = _nothing,
) -> Iterator[Event]:
    """Train a new run. Yields events as they are written to `events.jsonl`, the first ones while the model is prepared.

    Args:
        run: What to do.
        trainer: A trainer of your own in place of the method's; it is made with the method's settings.
        source: Data of your own in place of what the trainer's `source` gives, such as a folder with its class pictures.
        stop: Asked after each step, and while the run is prepared; yes ends the run there, saved.
        between: Called with the run in progress after each step.

    Raises:
        StudioError: the settings cannot work; a run that fails before its first step leaves no folder.
        RunFailed: the run broke; everything up to the last good step is saved.
    """
    check(run)
    own = Own(trainer, source)
    backend = Backend(run.hardware)
    run = _agreed(run, backend)
    folder = RunFolder(Path(run.output) / run.name)
    with held(folder, backend, run) as note:
        try:
            session = yield from prepared(
                lambda: _ready(Session(run, folder, own.made(run), backend)), note, backend, stop
            )
            note.begin(run.trackers, after=None)
        except BaseException:
            if backend.rank == 0:
                folder.clear()
            raise
        if session is None:
            if backend.rank == 0:
                folder.clear()
                yield {"event": "stopped", "time": round(time.time(), 3), "step": 0}
            return
        yield from _drive(session, note, own, stop, between)


def resume(  # noqa: PLR0913  # what a person may bring along
    path: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    allow_changes: bool = False,
    trainer: type[Trainer] | None = None,
    source: Source | None = None,
    stop: Callable[[], bool] = _never,
    between: Between = _nothing,
) -> Iterator[Event]:
    """Go on with a run from its newest sound checkpoint, exactly as if it had never stopped.

    Args:
        path: Run folder, or its name under `runs/`.
        changes: Settings to change. Only those that do not change the mathematics, such as `loop.steps` of a
            constant schedule or the hardware, pass without `allow_changes`.
        allow_changes: Take any change; the run is then no longer the uninterrupted one.
        trainer: The trainer of your own that the run was begun with.
        source: The data of your own that the run was begun with.
        stop: Asked after each step, and while the run is prepared; yes ends the run there, saved.
        between: Called with the run in progress after each step.

    Raises:
        StudioError: Settings were changed that may not, or something the run was begun with is missing.
    """
    folder, old = runs.open_run(path)
    values = old.to_dict()
    run = Run.from_dict(serial.merge(values, changes or {}))
    refuse_changes(values, run.to_dict(), allow_changes)
    check(run)
    own = Own(trainer, source)
    own.refuse_other(folder, "own_trainer", "own_source")
    made = own.made(run)
    backend = Backend(run.hardware)
    with held(folder, backend) as note:
        try:
            session = yield from prepared(
                lambda: _taken_up(Session(run, folder, made, backend)), note, backend, stop
            )
            note.begin(run.trackers, after=session.saved if session else None)
        except BaseException:
            note.forget()
            raise
        if session is None:
            note.forget()
            if backend.rank == 0:
                yield {"event": "stopped", "time": round(time.time(), 3), "step": _saved_step(folder)}
            return
        yield from _drive(session, note, own, stop, between)


def _ready(session: Session) -> Session:
    """A session with its data looked through."""
    _ = session.source
    return session


def _taken_up(session: Session) -> Session:
    session.resume()
    return _ready(session)


def _saved_step(folder: RunFolder) -> int:
    found = checkpoint.latest(folder.checkpoints)
    return checkpoint.step_of(found) if found else 0


def _agreed(run: Run, backend: Backend) -> Run:
    """The run with its name, the same on all processes; one that nobody gave is of a folder that nobody has."""
    name = run.name
    if not name and backend.rank == 0:
        name = runs.new_name(run.output, time.strftime(f"{methods.card_of(run.method).name}-%Y%m%d-%H%M%S"))
    if backend.world > 1:
        names = [name]
        torch.distributed.broadcast_object_list(names)
        name = names[0]
    return dataclasses.replace(run, name=name)


def _drive(
    session: Session, note: Notes, own: Own, stop: Callable[[], bool], between: Between
) -> Iterator[Event]:
    run, folder, backend = session.run, session.folder, session.backend
    found = session.saved >= 0
    if backend.rank == 0:  # what is written down is what runs, in steps where epochs were asked for
        runs.write_text(folder.config, json.dumps(run.to_dict(), indent=2) + "\n")
    try:
        told = {"folder": str(folder.path), "resumed": found, "steps": run.loop.steps, **_begun(run)}
        told |= own.told()
        yield from note("start", step=session.step, facts=session.facts(), **told)
        yield from _look(session, note, force=not found)
        yield from _steps(session, note, stop, between)
        yield from _end(session, note, own, stop)
    except Taken:
        raise
    except GeneratorExit:
        note.require()
        session.save()
        list(note("stopped", step=session.step))
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, perhaps amid a step: what is saved stays, nothing is added
        list(note("stopped", step=max(session.saved, 0)))
        raise
    except Exception as error:
        yield from _failed(session, note, error)
        raise
    finally:
        if backend.world > 1:
            backend.close()


def _failed(session: Session, note: Notes, error: Exception) -> Iterator[Event]:
    """Say what broke a run, and keep its work; raises one of memory as a sentence that helps."""
    told = explained(error, session.run, session.step)
    yield from note("failed", step=session.step, error=str(told) or type(told).__name__)
    _save_after(told, session)
    if told is not error:
        raise told from error


def _begun(run: Run) -> dict[str, str]:
    """What a run takes that nobody may have said: why its preset, and which published model its model is taken for."""
    card, own = methods.card_of(run.method), serial.to_dict(run.method)
    return {"preset": presets.told(card, own, run.preset).why, "model": presets.taken_for(card, own)}


def _steps(session: Session, note: Notes, stop: Callable[[], bool], between: Between) -> Iterator[Event]:
    parts = (session.trainer, session.learner, session.backend, session.run)
    for done in fit(*parts, first=session.step, source=session.source):
        session.step = done.step
        note.require()
        if done.values:
            yield from note("step", step=done.step, **done.values)
        yield from _look(session, note)
        between(session)
        if session.backend.any(stop()):
            return


def _end(session: Session, note: Notes, own: Own, stop: Callable[[], bool]) -> Iterator[Event]:
    finished = session.step >= session.run.loop.steps or not session.backend.any(stop())
    if path := session.save():
        yield from note("checkpoint", step=session.step, path=str(path))
    if finished:
        yield from note("export", step=session.step, files=_export(session, own))
    kind = "done" if finished else "stopped"
    yield from note(kind, step=session.step, seconds=time.time() - session.started)


def _export(session: Session, own: Own) -> list[str]:
    """The run's exports; of sharded weights by one process, from the checkpoint just written."""
    if not session.backend.sharded:
        return session.export()
    files = (
        export_again(session.folder, session.run, trainer=own.trainer) if session.backend.rank == 0 else []
    )
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
        try:
            if event := session.preview():
                yield from note("preview", **event)
        except OSError as error:
            yield from note("unsaved", step=step, what="preview", error=str(error))
        improved = bool(step) and session.backend.any(session.best != best)
    if (
        run.loop.validate_every
        and (force or step % run.loop.validate_every == 0)
        and (event := session.validate())
    ):
        yield from note("validation", **event)
    due = step and run.loop.checkpoint_every and step % run.loop.checkpoint_every == 0
    if (due or improved) and session.trainer.resumable(step):
        try:
            if path := session.save():
                yield from note("checkpoint", step=step, path=str(path), best=session.best[1] == step)
        except RunFailed as error:  # there may be room for the next one; stopping now would lose these steps
            yield from note("unsaved", step=step, what="checkpoint", error=str(error))


def run_to_end(run: Run) -> RunFolder:
    """Train a run without looking at its events; gives its folder."""
    path = ""
    for event in train(run):
        path = event.get("folder", path) if event["event"] == "start" else path
    return RunFolder(Path(path))

"""The training use-case: settings to trained, exported weights, as a generator of events.

    for event in train(Run(method=DreamBooth(data="photos", subject="dog"))):
        print(event)

Closing the generator stops the run between two steps and saves it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from studio import catalog, checkpoint, runs, serial
from studio.backend.core import Backend
from studio.config import Run
from studio.errors import RunFailed, StudioError
from studio.loop import fit, require_finite, rows, split
from studio.optim import Learner
from studio.runs import EventLog, RunFolder
from studio.tracking import tracker
from studio.trainer import Group, Request, Shard, Trainer

log = logging.getLogger(__name__)
Event = dict[str, Any]
_EXTENDS = {
    "loop.steps",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.keep_checkpoints",
    "name",
    "output",
}
_MACHINE = ("hardware.", "preview.", "trackers")


def check(run: Run) -> None:
    """Refuse what cannot work before anything is loaded."""
    catalog.card_of(run.method).check(run.method)
    share = run.hardware.num_processes * run.loop.accumulate
    if run.loop.batch_size % share:
        raise StudioError(
            f"loop.batch_size {run.loop.batch_size} cannot be split over {run.hardware.num_processes} processes x "
            f"{run.loop.accumulate} parts; choose a multiple of {share}.",
            field="loop.batch_size",
        )
    if run.optim.name == "schedule-free" and run.optim.ema:
        raise StudioError(
            "optim.ema and the schedule-free optimizer both average the weights; set --optim.ema 0.",
            field="optim.ema",
        )


class Session:
    """One run in progress: its parts, and what is done between steps."""

    def __init__(self, run: Run, folder: RunFolder, trainer: Trainer, backend: Backend) -> None:
        self.run, self.folder, self.trainer, self.backend = run, folder, trainer, backend
        trainer.backend = backend
        with backend.seeded(run.seed):
            self.groups: list[Group] = trainer.setup(backend)
        self.learner = Learner(self.groups, run.optim, run.loop, backend.scaler())
        self.step, self.saved, self.best = 0, -1, (float("-inf"), -1)
        self.started = time.time()

    def resume(self) -> bool:
        """Take up the newest sound checkpoint, if there is one."""
        path = checkpoint.latest(self.folder.checkpoints)
        if path is None:
            return False
        checkpoint.restore_weights(path, self.groups)
        state = checkpoint.read_state(path)
        self.learner.load_state(state["learner"])
        self.trainer.load_state(state["trainer"])
        self.best = tuple(state["best"])
        self.step = self.saved = checkpoint.step_of(path)
        return True

    def save(self) -> Path | None:
        """Write a checkpoint of the step that is finished, unless it is written already."""
        if self.saved == self.step:
            return None
        path = None
        if self.backend.rank == 0:
            self.learner.mode(train=True)
            state = {
                "learner": self.learner.state(),
                "trainer": self.trainer.state(),
                "best": list(self.best),
            }
            path = checkpoint.save(
                self.folder.checkpoints, self.step, self.groups, state, runs.dump(self.run)
            )
            checkpoint.rotate(self.folder.checkpoints, self.run.loop.keep_checkpoints, protect=[self.best[1]])
        self.saved = self.step
        self.backend.wait()
        return path

    def preview(self) -> Event | None:
        """Draw the fixed prompts from the fixed seeds, score them, and note the best step."""
        prompts = list(self.run.preview.prompts or self.trainer.prompts())
        if not prompts or self.backend.rank:
            return None
        wanted = self.run.preview
        request = Request(
            prompts=prompts,
            num_images=wanted.num_images,
            seed=self.run.seed,
            steps=wanted.steps,
            guidance=wanted.guidance,
        )
        rng = self.backend.rng(self.run.seed, 0, rows=len(prompts) * wanted.num_images)
        with self.learner.best_weights(), torch.no_grad():
            output = self.trainer.sample(request, rng)
        folder = self.folder.samples / f"step-{self.step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(output.images):
            image.save(folder / f"{index}.png")
        scores = self.trainer.score(output, request)
        if scores.get("quality", float("-inf")) > self.best[0]:
            self.best = (scores["quality"], self.step)
        return {"step": self.step, "folder": str(folder), "prompts": prompts, "scores": scores}

    @torch.no_grad()
    def validate(self) -> Event | None:
        """Loss on held-out data with the same noise every time."""
        source = self.trainer.held_out()
        if source is None:
            return None
        total = min(len(source), self.run.loop.batch_size)
        batch = next(source.stream(self.run.seed, 0, Shard(total, 0, total)))
        rng = self.backend.rng(self.run.seed, 0, rows=rows(batch))
        with self.learner.best_weights(), self.backend.autocast():
            loss = self.trainer.loss(self.backend.move(split(batch, 1)[0]), rng)
        require_finite({"validation loss": loss.total}, self.step)
        return {"step": self.step, "loss": float(loss.total)}

    def export(self) -> list[str]:
        """Write the trained weights in the ecosystem's formats."""
        if self.backend.rank:
            return []
        with self.learner.best_weights():
            return [str(p) for p in self.trainer.export(self.folder.export)]

    def facts(self) -> list[str]:
        """One line a fact, for the start."""
        trained = sum(p.numel() for p in self.learner.parameters)
        total = sum(
            p.numel() for m in {id(g.module): g.module for g in self.groups}.values() for p in m.parameters()
        )
        loop = self.run.loop
        return [
            *self.backend.facts(),
            f"trainable: {trained:,} of {total:,} parameters",
            f"batch: {loop.batch_size} examples a step ({self.backend.world} processes, {loop.accumulate} parts)",
        ]


def train(run: Run, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train a new run. Yields events as they are written to `events.jsonl`.

    Args:
        run: What to do.
        stop: Asked after each step; yes ends the run there, saved.

    Raises:
        StudioError: the settings cannot work; nothing was written if it is found before the run folder is made.
        RunFailed: the run broke; everything up to the last good step is saved.
    """
    check(run)
    trainer = catalog.card_of(run.method).load_trainer()(run.method)
    backend = Backend(run.hardware)
    folder = _agreed_folder(run, backend)
    yield from _drive(run, folder, trainer, backend, stop, resume=False)


def resume(
    path: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    allow_changes: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Go on with a run from its newest sound checkpoint, exactly as if it had never stopped.

    Args:
        path: Run folder, or its name under `runs/`.
        changes: Settings to change. Only those that do not change the mathematics, such as `loop.steps` of a
            constant schedule or the hardware, pass without `allow_changes`.
        allow_changes: Take any change; the run is then no longer the uninterrupted one.
        stop: Asked after each step; yes ends the run there, saved.
    """
    folder, old = runs.open_run(path)
    values = runs.dump(old)
    run = runs.build(serial.merge(values, changes or {}))
    _refuse_changes(values, runs.dump(run), allow_changes)
    check(run)
    trainer = catalog.card_of(run.method).load_trainer()(run.method)
    backend = Backend(run.hardware)
    if backend.rank == 0:
        checkpoint.sweep(folder.checkpoints)
        runs.write_text(folder.config, json.dumps(runs.dump(run), indent=2) + "\n")
    yield from _drive(run, folder, trainer, backend, stop, resume=True)


def export_again(folder: RunFolder, run: Run) -> list[str]:
    """Write a run's weights, as its newest sound checkpoint has them, into its export folder.

    Raises:
        StudioError: The run has no checkpoint, or the settings do not fit it.
    """
    trainer = catalog.card_of(run.method).load_trainer()(run.method)
    session = Session(run, folder, trainer, Backend(run.hardware))
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
    name = run.name or time.strftime(f"{catalog.card_of(run.method).name}-%Y%m%d-%H%M%S")
    if backend.world > 1:
        names = [name]
        torch.distributed.broadcast_object_list(names)
        name = names[0]
    named = runs.build(serial.merge(runs.dump(run), {"name": name}))
    if backend.rank == 0:
        return runs.create(named)
    return RunFolder(Path(run.output) / name)


def _drive(
    run: Run, folder: RunFolder, trainer: Trainer, backend: Backend, stop: Callable[[], bool], *, resume: bool
) -> Iterator[Event]:
    session = Session(run, folder, trainer, backend)
    found = resume and session.resume()
    record = EventLog(folder, after=session.step if found else None) if backend.rank == 0 else None
    copies = [tracker(name, folder) for name in run.trackers] if record else []

    def note(event: str, **values: Any) -> Iterator[Event]:
        if record:
            written = record.write(event, **values)
            for copy in copies:
                copy.log(written)
            yield written

    try:
        yield from note(
            "start", step=session.step, folder=str(folder.path), resumed=found, facts=session.facts()
        )
        yield from _look(session, note, force=not found)
        for done in fit(trainer, session.learner, backend, run, first=session.step):
            session.step = done.step
            if done.values:
                yield from note("step", step=done.step, **done.values)
            yield from _look(session, note)
            if backend.any(stop()):
                break
        finished = session.step >= run.loop.steps or not backend.any(stop())
        if path := session.save():
            yield from note("checkpoint", step=session.step, path=str(path))
        if finished:
            yield from note("export", step=session.step, files=session.export())
        yield from note(
            "done" if finished else "stopped", step=session.step, seconds=time.time() - session.started
        )
    except GeneratorExit:
        session.save()
        if record:
            record.write("stopped", step=session.step)
        raise
    except Exception as error:
        yield from note("failed", step=session.step, error=str(error) or type(error).__name__)
        _save_after(error, session)
        raise
    finally:
        for each in [record, *copies] if record else []:
            each.close()
        if backend.world > 1:
            backend.close()


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
    best = session.best
    if (
        run.preview.every
        and (force or (step and step % run.preview.every == 0))
        and (event := session.preview())
    ):
        yield from note("preview", **event)
    if (
        run.loop.validate_every
        and (force or step % run.loop.validate_every == 0)
        and (event := session.validate())
    ):
        yield from note("validation", **event)
    due = step and run.loop.checkpoint_every and step % run.loop.checkpoint_every == 0
    improved = step and session.best != best
    if (due or improved) and session.trainer.resumable(step) and (path := session.save()):
        yield from note("checkpoint", step=step, path=str(path), best=session.best[1] == step)


def run_to_end(run: Run) -> RunFolder:
    """Train a run without looking at its events; gives its folder."""
    path = ""
    for event in train(run):
        path = event.get("folder", path) if event["event"] == "start" else path
    return RunFolder(Path(path))

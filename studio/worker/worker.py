"""The process that owns a device: takes jobs from the queue and answers with events, pictures and numbers.

A long job ends its process, so that its memory goes back. Short ones (pictures, plans, exports) share a warm
process, which keeps the model of the last request and leaves when something long waits, or nothing does.
A training job also answers questions between two steps, from its live weights, without a second model.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from studio.catalog.run import Run
from studio.errors import StudioError
from studio.queue import jobs as queue
from studio.queue.jobs import LONG, Job, Jobs, State, Unusable
from studio.records.processes import me

log = logging.getLogger(__name__)
BEAT = 0.5
"""Seconds between two signs of life, and between two looks at whether to stop."""
AGAIN = (0.5, 2.0, 10.0, 60.0, 300.0)
"""Seconds between attempts to write how a job ended."""
IDLE = 60.0
"""Seconds that a warm process waits for the next short job."""
SHORT: tuple[queue.Kind, ...] = tuple(kind for kind in queue.KINDS if kind not in LONG)
INTERRUPTED = ("plan", "subject", "robustness", "nullspace", "vlm", "export", "data", "caption")
"""Jobs that cannot stop between steps: stopping interrupts them."""


class Stopped(Exception):
    """A job ended because it was asked to."""


class Pulse:
    """Writes a job's heartbeat in the background, and knows whether it shall stop."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self.asked = False
        self._jobs, self._job, self._closed = jobs, job, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
        self._thread.start()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            try:
                asked = self._jobs.beat(self._job.id)
            except Unusable:
                log.exception("no sign of life could be written; the work goes on")
                continue
            if asked and not self.asked and self._job.kind in INTERRUPTED:
                os.kill(os.getpid(), signal.SIGINT)
            self.asked = self.asked or asked

    def __call__(self) -> bool:
        """Whether stopping was asked for."""
        return self.asked

    def request(self) -> None:
        """Stop at the next step."""
        self.asked = True

    def close(self) -> None:
        """End the heartbeat."""
        self._closed.set()
        self._thread.join()


class Worker:
    """Does jobs of one device, one after the other."""

    def __init__(self, jobs: Jobs, device: str) -> None:
        self.jobs, self.device = jobs, device
        self._models = Models()
        self._pulse: Pulse | None = None
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._pulse is None:
            raise KeyboardInterrupt
        self._pulse.request()

    def work(self, *, idle: float = IDLE) -> None:
        """Take jobs until a long one is done, or none has come for `idle` seconds."""
        kinds, since = queue.KINDS, time.monotonic()
        while time.monotonic() - since < idle:
            job = self.jobs.claim(self.device, me(), kinds=kinds)
            if job is not None:
                self.do(job)
                kinds, since = SHORT, time.monotonic()
            if job is not None and job.kind in LONG:
                return
            if job is None and any(each.device == self.device for each in self.jobs.queue()):
                return  # something long waits: a fresh process shall have all the memory
            time.sleep(BEAT)

    def do(self, job: Job) -> None:
        """Do one job and write down how it ended."""
        self._pulse = Pulse(self.jobs, job)
        with self.jobs.log(job.id).open("a", encoding="utf-8") as output:
            handler = logging.StreamHandler(output)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logging.getLogger().addHandler(handler)
            try:
                self._try(job)
            finally:
                logging.getLogger().removeHandler(handler)
                self._pulse.close()
                self._pulse = None

    def _try(self, job: Job) -> None:
        try:
            result = self._run(job)
        except (Stopped, KeyboardInterrupt):
            self._finish(job, "stopped")
        except StudioError as error:
            log.error("%s", error)  # noqa: TRY400  # a person's mistake needs no traceback
            self._finish(job, "failed", error=str(error))
        except Exception as error:
            log.exception("job %d failed", job.id)
            self._finish(job, "failed", error=f"{type(error).__name__}: {error}")
        else:
            if job.kind in ("train", "resume") and result.get("status") == "stopped":
                self._finish(job, "stopped", result=result)
            else:
                self._finish(job, "done", progress=1.0, result=result)

    def _tell(self, job: Job, **values: Any) -> None:
        """Write how far a job is; a queue that cannot be written does not end it."""
        try:
            self.jobs.set(job.id, **values)
        except Unusable:
            log.exception("how far the job is could not be written; the work goes on")

    def _finish(self, job: Job, state: State, **values: Any) -> None:
        """Write how a job ended, as soon as the queue can be written again."""
        for pause in AGAIN:
            try:
                self.jobs.finish(job.id, state, **values)
            except Unusable as error:
                log.exception("how the job ended could not be written; again in %g seconds", pause)
                if error.broken:
                    self.jobs.repair()
                time.sleep(pause)
            else:
                return

    def _run(self, job: Job) -> dict[str, Any]:
        match job.kind:
            case "train" | "resume":
                return self._train(job)
            case "sample" | "grid":
                return self._draw(job)
            case _:
                from studio.worker import chores

                return chores.do(job, self.jobs.folder(job.id))

    def _train(self, job: Job) -> dict[str, Any]:
        from studio.training.train import resume, train
        from studio.worker.live import Answers

        pulse, answers = self._pulse, Answers(self.jobs, job)
        stop: Callable[[], bool] = pulse or (lambda: False)
        if job.kind == "train":
            run = Run.from_dict(dict(job.payload))
            if run.hardware.num_processes > 1:
                raise StudioError(
                    "A job of the app runs in one process; start runs of several with the command.",
                    field="hardware.num_processes",
                )
            events = train(run, stop=stop, between=answers)
        else:
            events = resume(job.payload["run"], job.payload.get("changes", {}), stop=stop, between=answers)
        return self._follow(job, events)

    def _follow(self, job: Job, events: Iterator[dict[str, Any]]) -> dict[str, Any]:
        folder, status, shown, total = "", "", 0.0, 1
        for event in events:
            step, status = event.get("step", 0), event["event"]
            if status == "prepare":
                self._tell(job, note=preparing(event))
            if status == "start":
                folder, total = str(Path(event["folder"]).resolve()), event["steps"]
                self._tell(job, run=folder, note="\n".join(event["facts"]))
            if time.monotonic() - shown > BEAT or status != "step":
                self._tell(job, progress=step / total)
                shown = time.monotonic()
            log.info("%s", {k: v for k, v in event.items() if k not in ("time", "facts")})
        _report(folder)
        return {"status": status, "run": folder}

    def _draw(self, job: Job) -> dict[str, Any]:
        from studio.settings.sampling import SampleRequest
        from studio.settings.serial import from_dict
        from studio.worker.compare import compare

        folder = self.jobs.folder(job.id)
        if job.kind == "sample":
            steps = self._models.sample(from_dict(SampleRequest, job.payload["request"]))
        else:
            steps = compare(job.payload, self._models.sample, folder)
        return self._draws(job, steps, folder)

    def _draws(self, job: Job, steps: Generator[Any, None, dict[str, Any]], folder: Path) -> dict[str, Any]:
        shown = time.monotonic()
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                return finished.value
            if self._pulse and self._pulse():
                raise Stopped
            if time.monotonic() - shown > 2 * BEAT:
                self._tell(job, progress=step.done / step.total)
                _show(step.preview()[0], folder)
                shown = time.monotonic()


class Models:
    """The model of the last request, kept as long as the next one wants the same."""

    def __init__(self) -> None:
        self._key, self._family, self._edits = "", None, []

    def sample(self, request: Any) -> Generator[Any, None, dict[str, Any]]:
        """Draw a request; yields progress and returns the files."""
        from studio.sampling import infer

        text = (request.text, request.as_trained)
        key = repr((request.model, request.artifact, request.strength, text, request.hardware))
        key += repr([_changed(Path(path)) for path in request.artifact])
        if key != self._key or self._family is None:
            self._key, self._family, self._edits = "", None, []  # the old one goes before the new one comes
            self._family, self._edits = infer.load(request)
            self._key = key
        drawn = yield from infer.sample(request, self._family, self._edits)
        found = [str(path.resolve()) for path in drawn.paths]
        return {"pictures": found, "grid": str(drawn.grid.resolve()) if drawn.grid else ""}


def _changed(path: Path) -> float:
    files = [path, *path.glob("export/*")]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _show(picture: Any, folder: Path) -> None:
    temporary = folder / ".preview.webp"
    picture.save(temporary, quality=80)
    temporary.replace(folder / "preview.webp")


def preparing(event: Mapping[str, Any]) -> str:
    """What is done before a run's first step, in words."""
    return f"preparing: {event['what']}" + (
        f", {event['done']} of {event['total']}" if event["total"] else ""
    )


def _report(folder: str) -> None:
    from studio.records.runs import RunFolder
    from studio.reports.html import write
    from studio.reports.report import from_run

    if folder:
        write(from_run(RunFolder(Path(folder))), Path(folder) / "report.html")


def main(arguments: list[str]) -> None:
    """Entry of the process: the folder of jobs and the device."""
    folder, device = arguments
    worker = Worker(Jobs(folder), device)
    from studio.backend.quiet import quiet

    quiet()
    worker.work()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Keeps the queue moving: one worker process a device, started when work waits, noticed when it dies. No torch.

State is what the queue and the processes say, never what a server remembers: a server that starts anew finds
the jobs that went on without it, and those whose worker is gone.
"""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from studio.errors import StudioError
from studio.queue.jobs import Job, Jobs, Unusable
from studio.records import processes
from studio.records.processes import Process, alive
from studio.records.runs import EventLog, RunFolder, saved

log = logging.getLogger(__name__)
SECONDS = 0.5
"""Between two looks at the queue."""
LOST = "The worker process ended without a word (killed, out of memory, or the machine restarted)"


def devices() -> list[str]:
    """The devices that take jobs, one queue each: every NVIDIA GPU, else the CPU."""
    found = Path("/proc/driver/nvidia/gpus")
    count = len(list(found.iterdir())) if found.is_dir() else 0
    return [f"cuda:{number}" for number in range(count)] or ["cpu"]


def least_busy(jobs: Jobs) -> str:
    """The device with the fewest open jobs."""
    busy = [job.device for job in jobs.all(states=("queued", "running"), limit=-1)]
    return min(devices(), key=busy.count)


def reconcile(jobs: Jobs) -> list[Job]:
    """End, as failed, the jobs whose worker is gone; gives them."""
    gone = [job for job in jobs.running() if not alive(job.process)]
    for job in gone:
        folder = RunFolder(Path(job.run)) if job.run else None
        can_resume = folder is not None and bool(saved(folder.checkpoints))
        advice = "resume the run to go on from its last checkpoint" if can_resume else "start it again"
        if folder and folder.status() == "running":
            _note_failure(folder)  # before the job is closed: who sees it closed finds its run failed
        jobs.finish(job.id, "failed", error=f"{LOST}; {advice}.")
    return gone


def _note_failure(folder: RunFolder) -> None:
    step = max((event.get("step", 0) for event in folder.read_events()), default=0)
    record = EventLog(folder)
    record.write("failed", step=step, error=LOST + ".")
    record.close()


def kill(jobs: Jobs, job: int) -> None:
    """End a job's worker at once, saving nothing more; for work that does not answer."""
    found = jobs.get(job)
    if found.state == "running" and alive(found.process):
        psutil.Process(found.pid).kill()


def tick(jobs: Jobs, *, cwd: Path) -> None:
    """One look: end what died, start a worker on each device where work waits and none works."""
    reconcile(jobs)
    for device in {job.device for job in jobs.queue()}:
        with jobs.writing() as db:
            row = db.execute("select * from holders where device = ?", (device,)).fetchone()
            if row and alive(Process(pid=row["pid"], started=row["started"])):
                continue
            worker = _start(jobs, device, cwd)
            values = (device, worker.pid, worker.started)
            db.execute("insert or replace into holders (device, pid, started) values (?,?,?)", values)


def _start(jobs: Jobs, device: str, cwd: Path) -> Process:
    """A worker in a session of its own: closing the server's terminal does not reach it."""
    shown = {} if device == "cpu" else {"CUDA_VISIBLE_DEVICES": device.partition(":")[2]}
    command = [sys.executable, "-m", "studio.worker.worker", str(jobs.root), device]
    with (jobs.root / "workers.log").open("ab") as output:
        started = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **shown},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    threading.Thread(target=started.wait, daemon=True, name=f"reap {started.pid}").start()
    log.info("worker %d started for %s", started.pid, device)
    return Process(pid=started.pid, started=processes.started(started.pid))


class Supervisor:
    """Looks at the queue in the background for as long as it is open."""

    def __init__(self, jobs: Jobs, *, cwd: Path) -> None:
        self._jobs, self._cwd, self._closed = jobs, cwd, threading.Event()
        reconcile(jobs)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="supervisor")
        self._thread.start()

    def _watch(self) -> None:
        told = ""
        while not self._closed.wait(SECONDS):
            try:
                tick(self._jobs, cwd=self._cwd)
                told = ""
            except Exception as error:  # whatever it is, jobs wait: the next look may find it mended
                if str(error) != told:
                    log.exception("the queue could not be looked at; trying again")
                told = str(error)
                self._repair(error)

    def _repair(self, error: Exception) -> None:
        if isinstance(error, Unusable) and error.broken:
            try:
                self._jobs.repair()
            except (StudioError, OSError):
                log.exception("the queue could not be made anew; trying again")

    def close(self) -> None:
        """Stop looking; workers go on."""
        self._closed.set()
        self._thread.join()

"""Visitors against training: what browsing costs a run, how fast pages answer, what pictures from a live run cost.

python -m tests.ui.bench [VISITORS] [SECONDS]

Windows with and without visitors alternate, so that what else the machine does falls on both alike.
"""

import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path

from studio import assets
from studio.catalog.run import Run
from studio.queue.jobs import Jobs
from studio.records.runs import RunFolder
from studio.same_subject.config import NoPrior
from studio.settings.run import Loop, Preview
from tests.ui.browser import Studio, wait
from trainers.dreambooth.config import DreamBooth

ROUNDS = 3
PAUSE = 1.5
"""Seconds between two looks of a visitor, as the page's own timer makes them."""
QUESTIONS = 5


class Visitor(threading.Thread):
    """Opens the page, then looks at the runs as the page's timer does."""

    def __init__(self, address: str, tick: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.address, self.tick, self.stop = address, tick, stop
        self.pages: list[float] = []
        self.looks: list[float] = []
        self.failed = 0

    def run(self) -> None:
        session = uuid.uuid4().hex
        self._timed(self.pages, "/")
        self._timed(self.pages, "/config")
        while not self.stop.wait(PAUSE):
            body = {"data": ["bench", None, 1, 0.6, "Main"], "fn_index": self.tick, "session_hash": session}
            self._timed(self.looks, "/gradio_api/run/predict", json.dumps(body).encode())

    def _timed(self, into: list[float], path: str, body: bytes | None = None) -> None:
        headers = {"Content-Type": "application/json"} if body else {}
        started = time.perf_counter()
        try:
            request = urllib.request.Request(self.address + path, body, headers)
            urllib.request.urlopen(request, timeout=60).read()
        except OSError:
            self.failed += 1
            return
        into.append(time.perf_counter() - started)


def tick_of(address: str) -> int:
    """The number of the Runs page's timer event."""
    config = json.loads(urllib.request.urlopen(f"{address}/config", timeout=60).read())
    found = [d for d in config["dependencies"] if any(event == "tick" for _, event in d["targets"])]
    return max(found, key=lambda dependency: len(dependency["outputs"]))["id"]


def rate(folder: RunFolder, seconds: float) -> float:
    """Steps a second of a run from now on."""
    first = sum(1 for _ in folder.read_events("step"))
    started = time.perf_counter()
    time.sleep(seconds)
    return (sum(1 for _ in folder.read_events("step")) - first) / (time.perf_counter() - started)


def quantile(values: list[float], part: float) -> float:
    """A quantile of some seconds, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def start_run(studio: Studio, jobs: Jobs) -> tuple[int, RunFolder]:
    """An endless run on the embedded model."""
    shutil.copytree(assets.path("samples/unicorn"), studio.root / "unicorn")
    method = DreamBooth(data="unicorn", token="sks", prior=NoPrior())
    loop = Loop(steps=1_000_000, batch_size=2, log_every=1, checkpoint_every=0)
    run = Run(method=method, name="bench", output="runs", loop=loop, preview=Preview(every=0))
    job = jobs.add("train", run.to_dict(), title="bench", run=str(studio.root / "runs" / "bench"))
    folder = RunFolder(studio.root / "runs" / "bench")
    wait(lambda: sum(1 for _ in folder.read_events("step")) > 10, "the first steps", 300)
    return job, folder


def ask(jobs: Jobs, job: int, seed: int) -> tuple[float, float]:
    """Seconds until one picture of 20 steps was there, and how many of them the run stood still."""
    request = {"prompt": ["a sticker of a sks object"], "steps": 20, "guidance": 2.0, "seed": seed}
    question = jobs.ask(job, {"request": request})
    found = wait(lambda: (a := jobs.get_ask(question)).state != "queued" and a, "an answer", 120)
    if found.error:
        raise RuntimeError(found.error)
    return found.ended - found.made, found.result["seconds"]


def main(visitors: int = 20, seconds: float = 20.0) -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory() as root:
        studio = Studio(Path(root))
        try:
            print(json.dumps(measure(studio, visitors, seconds), indent=1))
        finally:
            studio.close()


def measure(studio: Studio, visitors: int, seconds: float) -> dict[str, object]:
    """All numbers."""
    jobs = Jobs(studio.root / ".studio" / "jobs")
    job, folder = start_run(studio, jobs)
    tick, alone, visited, crowd = tick_of(studio.address), [], [], []
    for _ in range(ROUNDS):
        alone.append(rate(folder, seconds))
        stop = threading.Event()
        now = [Visitor(studio.address, tick, stop) for _ in range(visitors)]
        for visitor in now:
            visitor.start()
        time.sleep(2 * PAUSE)
        visited.append(rate(folder, seconds))
        stop.set()
        for visitor in now:
            visitor.join()
        crowd += now
    answers = [ask(jobs, job, seed) for seed in range(QUESTIONS)]
    looks = [each for visitor in crowd for each in visitor.looks]
    pages = [each for visitor in crowd for each in visitor.pages]
    change = statistics.median(b / a - 1 for a, b in zip(alone, visited, strict=True))
    return {
        "visitors": visitors,
        "server_start_seconds": studio.seconds,
        "steps_per_second_alone": [round(each, 3) for each in alone],
        "steps_per_second_visited": [round(each, 3) for each in visited],
        "change_of_steps_per_second": round(change, 4),
        "page_ms_median_p95": [round(quantile(pages, part)) for part in (0.5, 0.95)],
        "look_ms_median_p95": [round(quantile(looks, part)) for part in (0.5, 0.95)],
        "looks": len(looks),
        "failed_requests": sum(visitor.failed for visitor in crowd),
        "live_picture_seconds": [round(latency, 2) for latency, _ in answers],
        "run_stood_still_seconds": [round(still, 2) for _, still in answers],
    }


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))

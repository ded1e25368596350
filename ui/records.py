"""What run folders say, read once for all visitors: a file is read again only when it has changed."""

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.queue.jobs import Job, Jobs
from studio.records.runs import STATES, RunFolder, saved
from ui.workspace import Workspace

QUIET = 900.0
"""Seconds without an event after which a run that no job drives counts as interrupted."""
_NO_CURVES = ("event", "time", "step")
FIRST = ("loss", "quality", "reward", "accuracy")


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it."""

    name: str
    folder: RunFolder
    settings: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    changed: float

    @property
    def total(self) -> int:
        """Steps it shall take."""
        return int(self.settings.get("loop", {}).get("steps", 0))

    @property
    def step(self) -> int:
        """Steps it has taken, as far as the record says."""
        return max((event.get("step", 0) for event in self.events), default=0)

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings.get("method", {}).get("kind", ""))

    @property
    def preparing(self) -> str:
        """What is done before the next step, and how far it is; empty while steps are taken."""
        now = self.events[-1] if self.events else {}
        if now.get("event") != "prepare":
            return ""
        return f"{now['what']}, {now['done']} of {now['total']}" if now["total"] else str(now["what"])

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    def last(self, kind: str) -> Mapping[str, Any]:
        """The newest event of a kind; empty if there is none."""
        return next((event for event in reversed(self.events) if event["event"] == kind), {})

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Every quantity over the steps: losses first, then scores of the previews, then speed and memory."""
        found: dict[str, list[tuple[float, float]]] = {}
        for event in self.of("step"):
            _gather(found, event["step"], {k: v for k, v in event.items() if k not in _NO_CURVES}, "")
        for event in self.of("preview"):
            _gather(found, event["step"], event.get("scores", {}), "")
        for event in self.of("validation"):
            _gather(found, event["step"], {"validation loss": event["loss"]}, "")
        return dict(sorted(found.items(), key=lambda pair: (not pair[0].startswith(FIRST), 0)))

    def best(self) -> tuple[int, str]:
        """Step of the best checkpoint, and why it is."""
        scored = [
            (e["scores"]["quality"], e["step"])
            for e in self.of("preview")
            if "quality" in e.get("scores", {})
        ]
        if not scored:
            return 0, ""
        value, step = max(scored)
        return step, f"highest quality of its pictures ({value:.3f}), of {len(scored)} previews"


def _gather(
    found: dict[str, list[tuple[float, float]]], step: int, values: Mapping[str, Any], prefix: str
) -> None:
    for name, value in values.items():
        if isinstance(value, (int, float)):
            found.setdefault(f"{prefix}{name}", []).append((step, float(value)))


def read(workspace: Workspace, name: str) -> Record:
    """A run by name, from memory if nothing changed."""
    folder = workspace.run(name)
    stat = folder.events.stat() if folder.events.exists() else None
    return _read(folder, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)


@functools.lru_cache(maxsize=64)
def _read(folder: RunFolder, changed: int, length: int) -> Record:
    del length
    settings = json.loads(folder.config.read_text(encoding="utf-8"))
    return Record(folder.path.name, folder, settings, list(folder.read_events()), changed / 1e9)


def job_of(jobs: Sequence[Job], record: Record) -> Job | None:
    """The newest job of a run."""
    return next((job for job in jobs if job.run and Path(job.run).name == record.name), None)


def status(record: Record, job: Job | None) -> str:
    """The state of a run: its folder's word, unless a job knows better or nobody drives it any more."""
    if job and job.state in ("queued", "running"):
        return job.state
    if (
        job and job.state == "failed" and record.changed <= job.ended
    ):  # it broke before it could say so itself
        return "failed"
    states = [STATES[event["event"]] for event in record.events if event["event"] in STATES]
    last = states[-1] if states else "new"
    if last == "running" and (job or time.time() - record.changed > QUIET):
        return job.state if job and job.state != "done" else "interrupted"
    return last


def steps_of(folder: Path) -> list[int]:
    """Steps of which a folder of previews or checkpoints keeps something."""
    return list(saved(folder))


def pictures(record: Record, step: int) -> list[tuple[Path, str]]:
    """The previews of a step with their prompts."""
    files = sorted(
        (record.folder.samples / f"step-{step:08d}").glob("*.png"), key=lambda path: int(path.stem)
    )
    prompts = next((e.get("prompts", []) for e in record.of("preview") if e["step"] == step), [])
    each = max(1, len(files) // max(1, len(prompts)))
    return [(path, prompts[i // each] if i // each < len(prompts) else "") for i, path in enumerate(files)]


def newest_jobs(jobs: Jobs) -> list[Job]:
    """The jobs that the pages look at."""
    return jobs.all(limit=200)

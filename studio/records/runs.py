"""The run folder: what a run writes down, and reading it back. No torch.

runs/NAME/config.json      the resolved settings; re-creates the run
          events.jsonl     one line an event
          checkpoints/     step-00000100/ ..., written by studio.training.checkpoint
          samples/         step-00000100/0.png ...
          export/          the trained weights in the ecosystem's formats
          report.html
"""

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.catalog import methods
from studio.catalog.run import Run
from studio.errors import StudioError, unknown

log = logging.getLogger(__name__)
STATES = {"prepare": "running", "start": "running", "done": "done", "stopped": "stopped", "failed": "failed"}
"""Events after which a run is in a state, and which."""
_KINDS: dict[str, type | tuple[type, ...]] = {"event": str, "step": int, "steps": int, "time": (int, float), "seconds": (int, float),
    "loss": (int, float), "scores": dict, "facts": list, "prompts": list, "files": list, "folder": str}  # fmt: skip
"""Parts that events have in common."""
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.json"

    @property
    def events(self) -> Path:
        """One line an event."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of previews."""
        return self.path / "samples"

    @property
    def export(self) -> Path:
        """Folder of the trained weights."""
        return self.path / "export"

    def read_events(self, kind: str = "") -> Iterator[dict[str, Any]]:
        """Events in order; lines that a crash cut off or a disk damaged are left out."""
        if not self.events.exists():
            return
        with self.events.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                event = _event(line)
                if event and kind in ("", event["event"]):
                    yield event

    def sweep(self) -> None:
        """Remove what dead processes left half-written; only who holds the folder may."""
        for path in [*self.path.glob(".*.tmp"), *self.export.glob(".part-*"), *self.samples.glob("*/.*.tmp")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def is_void(self) -> bool:
        """Whether the run failed before its first step, so that nothing of it is worth keeping."""
        return self.status() == "failed" and not any(self.checkpoints.glob("*"))

    def clear(self) -> None:
        """Remove what a run that never took a step wrote."""
        self.config.unlink(missing_ok=True)
        self.events.unlink(missing_ok=True)
        for previews in self.samples.glob("step-*"):
            shutil.rmtree(previews)
        for folder in (self.samples, self.checkpoints, self.export, self.path):
            with contextlib.suppress(OSError):  # something of somebody else's is in it
                folder.rmdir()

    def status(self) -> str:
        """`new`, `running`, `done`, `stopped` or `failed`, as the last event says."""
        last = ""
        for event in self.read_events():
            last = STATES.get(event["event"], last)
        return last or "new"


def _event(line: bytes) -> dict[str, Any]:
    """What one line holds; nothing if it is no event, or one of its parts is not what it is in an event."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or "event" not in found:
        return {}
    sound = all(isinstance(found[key], kind) for key, kind in _KINDS.items() if key in found)
    texts = [text for key in ("facts", "prompts", "files") for text in found.get(key, ())] if sound else []
    return found if sound and all(isinstance(text, str) for text in texts) else {}


class EventLog:
    """Appends events to `events.jsonl`, whole lines only.

    A resumed run drops the events after the step it resumes from, so that the record has each step once.
    """

    def __init__(self, folder: RunFolder, *, after: int | None = None) -> None:
        if after is not None and folder.events.exists():
            kept = [e for e in folder.read_events() if e.get("step", 0) <= after and e["event"] != "prepare"]
            write_text(folder.events, "".join(json.dumps(e) + "\n" for e in kept))
        elif folder.events.exists():
            text = folder.events.read_bytes()
            if text and not text.endswith(b"\n"):
                write_text(folder.events, text[: text.rfind(b"\n") + 1].decode())
        self._file, self._waiting = folder.events.open("ab", buffering=0), b""

    def write(self, event: str, **values: Any) -> dict[str, Any]:
        """Add one event and return it as written; on a full disk it waits for room, and the work goes on."""
        record = {"event": event, "time": round(time.time(), 3), **values}
        told = bool(self._waiting)
        self._waiting += (json.dumps(record) + "\n").encode()
        if (problem := self._empty()) and not told:
            log.warning("%s cannot be written (%s); events wait in memory for room", self._file.name, problem)
        return record

    def _empty(self) -> str:
        """Write what waits; gives what hinders it."""
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            return str(error)
        return ""

    def truncate(self, size: int) -> None:
        """Drop what was written behind so many bytes."""
        self._waiting = b""
        self._file.truncate(size)

    def close(self) -> None:
        """Close the file."""
        if problem := self._empty():
            lost = self._waiting.count(b"\n")
            log.error(
                "%d events could not be written to %s (%s) and are lost", lost, self._file.name, problem
            )
        self._file.close()


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def saved(folder: Path) -> dict[int, Path]:
    """What a folder of checkpoints or previews keeps, by step, in their order."""
    found = {int(name[1]): path for path in folder.glob("step-*") if (name := _STEP.fullmatch(path.name))}
    return dict(sorted(found.items()))


def share(path: Path) -> None:
    """Let those read a file, or the files of a folder, who can read the folder.

    safetensors writes files that only their owner can read. Some mounts know no modes: files stay as they are there.
    """
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        with contextlib.suppress(PermissionError):
            file.chmod(file.parent.stat().st_mode & 0o666)


def new_name(output: str, wanted: str) -> str:
    """A name for a run that nobody else has: `wanted`, or that with a number; its folder is made, so that it stays free.

    Raises:
        StudioError: Nothing can be written there.
    """
    number, name = 1, wanted
    while True:
        try:
            (Path(output) / name).mkdir(parents=True)
        except FileExistsError:
            number += 1
            name = f"{wanted}-{number}"
        except OSError as error:
            raise _unwritable(Path(output), error) from None
        else:
            return name


def create(run: Run) -> RunFolder:
    """Make the folder of a new run and write its settings.

    An existing run is never written over, unless it failed before its first step: nothing of it is worth keeping.
    """
    name = run.name or f"{methods.card_of(run.method).name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = RunFolder(Path(run.output) / name)
    if folder.config.exists() and not folder.is_void:
        raise StudioError(
            f"Run folder {str(folder.path)!r} exists already; choose another --name, "
            f"or go on with `studio train --resume {folder.path}`.",
            field="name",
        )
    try:
        if folder.config.exists():
            folder.clear()
        folder.path.mkdir(parents=True, exist_ok=True)
        for sub in (folder.checkpoints, folder.samples, folder.export):
            sub.mkdir(exist_ok=True)
        write_text(folder.config, json.dumps(run.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise _unwritable(folder.path, error) from None
    return folder


def _unwritable(path: Path, error: OSError) -> StudioError:
    return StudioError(
        f"Cannot write to {str(path)!r} ({error.strerror}); choose a writable --output.", field="output"
    )


def settings_of(file: Path) -> dict[str, Any]:
    """The settings of a run, as plain values."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise StudioError(
            f"{file} is damaged, it holds no settings; restore it, or train the run anew.", field="run"
        )
    return found


def _upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """The settings in today's terms."""
    method = values.get("method")
    return (
        methods.card(method["kind"]).upgrade(values)
        if isinstance(method, dict) and "kind" in method
        else values
    )


def open_run(path: str | Path) -> tuple[RunFolder, Run]:
    """An existing run folder and its settings; a bare name is looked for under `runs/`."""
    given = Path(path)
    for candidate in (given, Path("runs") / given):
        if (candidate / "config.json").exists():
            folder = RunFolder(candidate)
            return folder, Run.from_dict(_upgraded(settings_of(folder.config)))
    found = [p.parent.name for p in Path("runs").glob("*/config.json")]
    raise unknown("run", str(path), found, field="run")


def list_runs(output: str | Path = "runs") -> list[RunFolder]:
    """All runs under a folder, newest first."""
    found = [p.parent for p in Path(output).glob("*/config.json")]
    return [RunFolder(p) for p in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)]

"""What a job and a question to one are, and their states. No torch."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from studio.records.processes import Process

Kind = Literal["train", "resume", "sample", "grid", "plan", "subject", "robustness", "nullspace", "vlm", "export",
               "data", "caption"]  # fmt: skip
State = Literal["queued", "running", "done", "stopped", "failed", "canceled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONG: tuple[Kind, ...] = ("train", "resume", "subject", "robustness", "nullspace", "vlm")
"""Jobs that get a process of their own; the others go first, and share a warm one."""
OPEN: tuple[State, ...] = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work and how far it is. Times are seconds since 1970; 0 is not yet."""

    id: int
    kind: Kind
    title: str
    payload: Mapping[str, Any]
    device: str
    state: State
    position: float
    made: float
    begun: float
    ended: float
    pid: int
    started: float
    heartbeat: float
    wanted: str
    """`stop` once stopping was asked for."""
    run: str
    """Run folder, if it has one."""
    progress: float
    note: str
    error: str
    result: Mapping[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen."""
        return self.state in OPEN

    @property
    def process(self) -> Process:
        """The worker that took it."""
        return Process(pid=self.pid, started=self.started)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question to a running job, such as for pictures from its live weights."""

    id: int
    job: int
    payload: Mapping[str, Any]
    state: State
    made: float
    ended: float
    error: str
    result: Mapping[str, Any]


def job_of(row: sqlite3.Row) -> Job:
    """A job from its row."""
    values = dict(row)
    return Job(**values | {name: json.loads(values[name]) for name in ("payload", "result")})


def ask_of(row: sqlite3.Row) -> Ask:
    """A question from its row."""
    values = dict(row)
    return Ask(**values | {name: json.loads(values[name]) for name in ("payload", "result")})

"""Processes, told apart for good: numbers are used again, number and start together are not. No torch."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process by its number and when it started: a number that no change of the clock changes."""

    pid: int
    started: float


def started(pid: int) -> float:
    """When a process started: on Linux in ticks since the machine did, else in seconds since 1970.

    Raises:
        psutil.Error: There is none of this number.
    """
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    return float(
        re.sub(r".*\)", "", told, flags=re.DOTALL).split()[19]
    )  # a name may hold anything, brackets too


def me() -> Process:
    """This process."""
    return Process(pid=os.getpid(), started=started(os.getpid()))


def alive(process: Process) -> bool:
    """Whether a process still runs, and is the same one."""
    if process.pid <= 0:
        return False
    try:
        same = started(process.pid) == process.started
        return same and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

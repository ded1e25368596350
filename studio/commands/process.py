"""How the command's process begins and ends: both in a hurry, as torch and diffusers are millions of objects.

What is shown never decides over the work: a terminal that closed, a pipe whose reader left, a full disk behind `> log` or a
console that cannot show a letter end nothing.
"""

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from typing_extensions import override

NEW_OBJECTS = 10_000
"""Garbage is looked for after so many new objects."""
FIRST_OBJECTS = 1_000_000
"""And for the first time after so many: importing torch and diffusers makes nearly as many and leaves little garbage,
and looking for it meanwhile, after every 700 as Python does, takes a sixth of the time."""


def begin() -> None:
    """Do not look for garbage while libraries are imported, and seldom afterwards."""
    gc.set_threshold(FIRST_OBJECTS)
    gc.callbacks.append(_begun)


class _Shown(io.FileIO):
    """Where output goes; what cannot go there any more goes nowhere."""

    @override
    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_streams() -> None:
    """Put streams in place of stdout and stderr that no reader can break and that escape letters they cannot show."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one of the three was closed: no file of ours may take its number
    os.close(spare)
    sys.stdout, sys.stderr = _lasting(1, sys.stdout), _lasting(2, sys.stderr)


def _lasting(number: int, old: TextIO | None) -> io.TextIOWrapper:
    """A stream to a file number, in the encoding of the old one; None is one that was closed."""
    encoding = getattr(old, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(_Shown(number, "wb", closefd=False)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=number == 2 or os.isatty(number),
    )


def _begun(phase: str, info: dict[str, Any]) -> None:
    del phase, info
    gc.set_threshold(NEW_OBJECTS)
    gc.callbacks.remove(_begun)


def on_end(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call a handler when the process shall end: SIGTERM, and a terminal that closes unless `nohup` said to stay."""
    signal.signal(signal.SIGTERM, handler)
    if (closes := getattr(signal, "SIGHUP", None)) and signal.getsignal(closes) != signal.SIG_IGN:
        signal.signal(closes, handler)


def leave(code: int) -> None:
    """End the process with an exit code, without taking torch apart, which alone takes two seconds.

    Exit handlers run and what was printed is flushed. Where other threads are still at work, or torch was never
    imported, Python ends as it always does.
    """
    busy = [thread for thread in threading.enumerate() if not thread.daemon]
    if busy != [threading.main_thread()] or "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
